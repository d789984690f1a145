"""What is refused before anything is served, with the right exit code."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from msresnet.cli.main import main
from msresnet.errors import UsageError
from msresnet.serve import models
from msresnet.serve.config import ServeConfig
from msresnet.serve.models import crew
from msresnet.serve.server import bind, read_key


def refused(words: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *words]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert text in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--port", "70000"], "ports end at 65535"),
        (["--port", "-1"], "it must be at least 0"),
        (["--workers", "-1"], "it must be at least 0"),
        (["--batch-size", "0"], "or --batch-size 1 and more"),
        (["--timeout", "0"], "seconds, above 0"),
        (["--timeout", "nan"], "seconds, above 0"),
        (["--max-delay", "nan"], "it must be at least 0"),
        (["--queue", "10"], "would never find room"),
        (["--model", "a=x", "a=y"], "two models are called 'a'"),
        (["--model", "runs/my model"], "is not a name"),
        (["--model", "runs/.."], "is not a name"),
        (["--api-key-file", "nothing"], "cannot read the key"),
        (["--api-key-file", "."], "cannot read the key"),
        (["--host", "no such host", "--port", "0"], "no such address"),
    ],
)
def test_K01_settings_that_cannot_be(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(words, 2, text, capsys)


def test_K10_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused(["--port", str(taken.getsockname()[1])], 5, "cannot listen at port", capsys)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_models_that_cannot_be_served(workers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    for name in ("broken.onnx", "nothing.onnx", "runs/nothing"):
        refused(["--model", name, "--workers", workers, "--port", "0"], 4, name, capsys)


def test_answers_are_not_held_back() -> None:
    """TCP's wait for an acknowledgement, 40 ms, is off on every connection to where the server listens."""

    async def no_delay() -> int:
        seen: asyncio.Queue[int] = asyncio.Queue()

        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.put_nowait(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with bind("127.0.0.1", 0) as listening:
            async with await asyncio.start_server(accepted, sock=listening):
                _, writer = await asyncio.open_connection(*listening.getsockname())
                found = await asyncio.wait_for(seen.get(), 10)
                writer.close()
        return found

    assert asyncio.run(no_delay()) != 0


def test_keys_come_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    monkeypatch.setenv("MSRESNET_API_KEY", "of the environment")
    assert read_key(None) == "of the environment"
    file.write_text("of the file\nsecond line\n")
    assert read_key(str(file)) == "of the file"
    for content in (b"", b"\n", b"  \n", b"\xff\n"):
        file.write_bytes(content)
        with pytest.raises(UsageError):
            read_key(str(file))
    monkeypatch.delenv("MSRESNET_API_KEY")
    assert read_key(None) == ""


@pytest.mark.parametrize(
    ("settings", "exported", "plain"),
    [
        ({}, (2, None), (1, None)),
        ({"threads": 3}, (1, 3), (1, 3)),
        ({"workers": 1}, (1, None), (1, None)),
        ({"workers": 2}, (2, 2), (2, 2)),
        ({"workers": 8}, (8, 1), (8, 1)),
        ({"workers": 0}, (0, None), (0, None)),
        ({"workers": 4, "threads": 4}, (4, 4), (4, 4)),
        ({"backend": "onnxruntime"}, (1, None), (1, None)),
        ({"backend": "openvino"}, (2, None), (1, None)),
    ],
)
def test_workers_and_threads(
    settings: dict[str, Any],
    exported: tuple[int, int | None],
    plain: tuple[int, int | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(models, "cores", lambda: 4)
    assert crew(ServeConfig(**settings), "exported/digits.onnx") == exported
    assert crew(ServeConfig(**settings), "runs/digits") == plain


def test_one_core_has_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "cores", lambda: 1)
    assert crew(ServeConfig(), "exported/digits.onnx") == (1, None)


def test_models_are_called_by_their_folder_or_file_or_as_said(tmp_path: Path) -> None:
    words = ("runs/digits", "exported/cats.onnx", "dogs=some/where.xml", "hf:user/repo", "a=b=c")
    assert ServeConfig(model=words).models == {
        "digits": "runs/digits",
        "cats": "exported/cats.onnx",
        "dogs": "some/where.xml",
        "repo": "hf:user/repo",
        "a": "b=c",
    }
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/latest").symlink_to("2026-best")
    assert ServeConfig().models == {"2026-best": "runs/latest"}


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys; from msresnet.cli.main import main\n"
        "assert main(['serve', '--help']) == 0\n"
        "heavy = {'torch', 'numpy', 'fastapi', 'uvicorn', 'PIL', 'prometheus_client'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "usage: msresnet serve" in result.stdout


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    """Python finds a FastAPI that cannot be imported, as where it is not installed."""
    (tmp_path / "fastapi.py").write_text("raise ModuleNotFoundError('gone', name='fastapi')")
    command = [sys.executable, "-m", "msresnet", "serve", "--model", "x"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 5
    assert 'pip install "msresnet[serve]"' in result.stderr
