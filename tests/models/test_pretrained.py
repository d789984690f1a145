"""Published weights: from a hub (a local server that answers as it does), from files, fitted or refused."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants, hf_hub_download
from safetensors.torch import load_file, save_file
from torch import Tensor

import hostile
from msresnet.bundle import Bundle, load_bundle
from msresnet.data.preprocess import Preprocess
from msresnet.errors import ModelError, UsageError
from msresnet.models.base import FeatureExtractor, ImageModel
from msresnet.models.factory import create_classifier, create_model
from msresnet.models.pretrained import with_channels
from msresnet.tasks.classification import ClassificationTask
from randomise import randomised, relative_error
from tiny import pictures, plan_for, trainer

SMALL: dict[str, Any] = {"depths": (1, 1), "widths": (8, 16)}
"""Arguments that make a ResNet of a few kilobytes."""


def weights(folder: Path, name: str = "resnet18", **arguments: Any) -> Path:
    """A file of weights as others publish them: tensors and nothing more."""
    model = randomised(create_classifier(name, **arguments))
    return written(folder, model.state_dict())


def written(folder: Path, tensors: dict[str, Tensor]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors")
    return folder / "model.safetensors"


@dataclass
class Hub:
    """A server that answers for repositories as the hub does; it remembers what was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def publish(self, repo: str, **files: bytes) -> None:
        """Put files into a repository; a double underscore in a keyword is a dot."""
        for name, data in files.items():
            self.files[f"/{repo}/resolve/main/{name.replace('__', '.')}"] = data


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            state.asked.append(f"{self.command} {self.path}")
            path = re.sub("/resolve/[^/]+/", "/resolve/main/", self.path)  # any revision is the one there is
            data = state.files.get(path)
            known = any(file.startswith("/".join(path.split("/")[:3]) + "/") for file in state.files)
            self.send_response(200 if data is not None else 404)
            if data is None:
                self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("ETag", f'"{hash(data)}"')
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            if body and data is not None:
                self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    endpoint(monkeypatch, server.server_port)
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def endpoint(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Let the hub's library ask a port of this machine."""
    url = f"http://127.0.0.1:{port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


def published(hub: Hub, tmp_path: Path, repo: str = "somebody/small.one", licence: str = "mit") -> Path:
    """A small ResNet in a repository."""
    file = weights(tmp_path / "published", **SMALL, num_classes=7)
    card = f"---\nlicense: {licence}\ntags:\n- image-classification\n---\n# A network\n".encode()
    config = json.dumps({"architecture": "resnet18", "num_classes": 7}).encode()
    hub.publish(repo, model__safetensors=file.read_bytes(), config__json=config, README__md=card)
    return file


def test_weights_come_from_the_hub_once_and_their_licence_is_shown_first(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = published(hub, tmp_path, licence="cc-by-nc-4.0")
    source = "hf:somebody/small.one"
    model = create_classifier("resnet18", pretrained=source, num_classes=7, **SMALL)
    assert "the licence of these weights is cc-by-nc-4.0" in capsys.readouterr().err
    readme, first = (next(i for i, a in enumerate(hub.asked) if a.endswith(n)) for n in ("README.md", ".safetensors"))
    assert readme < first
    local = create_classifier("resnet18", pretrained=str(file), num_classes=7, **SMALL)
    assert all(torch.equal(v, local.state_dict()[k]) for k, v in model.state_dict().items())
    hub.asked.clear()
    create_classifier("resnet18", pretrained=source, num_classes=7, **SMALL)
    assert hub.asked == []
    assert capsys.readouterr().err == ""


def test_the_networks_name_comes_from_the_repository(hub: Hub, tmp_path: Path) -> None:
    published(hub, tmp_path)
    model = create_classifier("hf:somebody/small.one", pretrained=True, num_classes=7, **SMALL)
    assert model.num_classes == 7


def test_published_names_know_where_their_weights_are(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table says that the licence of these is unknown; no card is asked."""
    file = weights(tmp_path / "w", "res2net50_26w_4s", depths=(1, 1), widths=(64, 128))
    hub.publish("timm/res2net50_26w_4s.in1k", model__safetensors=file.read_bytes(), config__json=b"{}")
    create_model("res2net50_26w_4s", pretrained=True, depths=(1, 1), widths=(64, 128))
    assert "weights is unknown (ask its authors" in capsys.readouterr().err
    assert not [a for a in hub.asked if a.endswith("README.md")]


def test_without_a_network_the_cache_serves_and_else_the_ways_out_are_named(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(hub, tmp_path)
    create_model("resnet18", pretrained="hf:somebody/small.one", num_classes=7, **SMALL)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    create_model("resnet18", pretrained="hf:somebody/small.one", num_classes=7, **SMALL)
    words = r"not in the cache and cannot be downloaded(?s:.)*HF_HUB_OFFLINE(?s:.)*huggingface\.co"
    with pytest.raises(ModelError, match=words):
        create_model("resnet18", pretrained="hf:somebody/another")


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint(monkeypatch, closed.getsockname()[1])
        with pytest.raises(ModelError, match=r"cannot be downloaded(?s:.)*does not answer"):
            create_model("resnet18", pretrained=True)


def test_repositories_that_are_not_there_or_hold_no_safetensors(hub: Hub) -> None:
    hub.publish("somebody/pickled", pytorch_model__bin=b"\x80\x02", config__json=b'{"architecture": "resnet18"}')
    with pytest.raises(ModelError, match=r"no model.safetensors(?s:.)*pickles are not loaded"):
        create_model("resnet18", pretrained="hf:somebody/pickled")
    with pytest.raises(ModelError, match="the hub answered 404"):
        create_model("resnet18", pretrained="hf:nobody/nothing")
    hub.publish("somebody/broken", config__json=b"{broken")
    with pytest.raises(ModelError, match=r"cannot read the config(?s:.)*somebody/broken: config.json"):
        create_model("hf:somebody/broken", pretrained=True)
    hub.publish("somebody/silent", config__json=b"{}")
    with pytest.raises(ModelError, match="does not say which network"):
        create_model("hf:somebody/silent", pretrained=True)


def test_a_training_takes_network_and_normalisation_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    file = weights(tmp_path / "w", **SMALL, num_classes=7)
    figures = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    config = json.dumps({"architecture": "resnet18", "pretrained_cfg": figures}).encode()
    hub.publish("somebody/whole", model__safetensors=file.read_bytes(), config__json=config, README__md=b"# None")
    words = ("depths=[1,1]", "widths=[8,16]")
    plan = plan_for(
        pictures(tmp_path / "data", side=32), model="auto", weights="hf:somebody/whole", model_args=words, channels=3
    )
    assert (plan.model, plan.preprocess.mean, plan.preprocess.std) == ("resnet18", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    begun, given = trainer(plan).network.state_dict(), load_file(file)
    assert all(torch.equal(begun[name], tensor) for name, tensor in given.items() if not name.startswith("fc."))
    # Published weights that say nothing beside themselves are taken as well.
    hub.publish("somebody/bare", model__safetensors=file.read_bytes())
    bare = plan_for(tmp_path / "data", model="resnet18", weights="hf:somebody/bare", model_args=words, channels=3)
    assert any("nothing says how theirs were" in note for note in bare.notes)


@pytest.mark.parametrize(
    "place", ["hf:", "hf:one", "hf:a/../b", "hf:../a", "hf:a/b@../c", "hf:a/b/c", "hf:a b/c", "hf:a/my--b", "hf:a/b-"]
)
def test_c15_places_on_the_hub_hold_no_paths(place: str) -> None:
    with pytest.raises(UsageError, match="names no place on the hub"):
        create_model("resnet18", pretrained=place)
    with pytest.raises(UsageError, match="names no place on the hub"):
        create_model(place)


def test_a_grey_image_gives_what_it_gave_in_three_channels(tmp_path: Path) -> None:
    file = str(weights(tmp_path, num_classes=5, **SMALL))
    colour = create_classifier("resnet18", pretrained=file, num_classes=5, **SMALL).eval()
    grey = create_classifier("resnet18", pretrained=file, num_classes=5, in_chans=1, **SMALL).eval()
    x = torch.randn(2, 1, 40, 33)
    with torch.no_grad():
        assert relative_error(grey(x), colour(x.expand(-1, 3, -1, -1))) < 1e-5
    five = create_classifier("resnet18", pretrained=file, num_classes=5, in_chans=5, **SMALL)
    assert torch.allclose(five.state_dict()["conv1.weight"][:, 3], colour.state_dict()["conv1.weight"][:, 0] * 3 / 5)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 9])
def test_channels_of_the_same_image_keep_the_output(channels: int) -> None:
    """Where all channels are equal and their number divides or is divided by three, the response stays as it was."""
    weight = torch.randn(4, 3, 3, 3)
    given = with_channels(weight, channels)
    assert given.shape == (4, channels, 3, 3)
    if channels % 3 == 0 or channels == 1:
        assert torch.allclose(given.sum(1), weight.sum(1), atol=1e-6)


@pytest.mark.parametrize("name", ["resnet18", "resnetv2_18", "hrnet_w18_small", "dla34"])
def test_other_classes_start_anew_and_the_rest_is_kept(name: str, tmp_path: Path) -> None:
    file = str(weights(tmp_path, name, num_classes=5))
    same = create_classifier(name, pretrained=file, num_classes=5).eval()
    other = create_classifier(name, pretrained=file, num_classes=9, img_size=64).eval()
    none = create_classifier(name, pretrained=file, num_classes=0).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(other.forward_features(x), same.forward_features(x))
        assert torch.equal(none(x), same.forward_head(same.forward_features(x), pre_logits=True))
        assert other(x).shape == (1, 9)
        features = create_model(name, pretrained=file, features_only=True, out_indices=(-1,), num_classes=5).eval()
        assert isinstance(features, FeatureExtractor)
        assert torch.equal(features(x)[0], same.forward_stages(x)[-1])
    with pytest.raises(ModelError, match=r"5 classes in the file, 1000 in the model(?s:.)*num_classes=5"):
        create_model(name, pretrained=file)


def test_weights_of_another_network_name_the_first_five_keys(tmp_path: Path) -> None:
    file = str(weights(tmp_path, num_classes=5))
    keys = r"layer1\.0\.downsample\.0\.weight, (.+, ){3}.+; unknown: none"
    with pytest.raises(ModelError, match=rf"not those of resnet50(?s:.)*missing: {keys}"):
        create_model("resnet50", pretrained=file, num_classes=5)
    with pytest.raises(ModelError, match=r"conv1.weight(?s:.)*\(64, 3, 7, 7\) in the file, \(64, 3, 3, 3\)"):
        create_model("resnet18", pretrained=file, num_classes=5, stem="small")


def test_c08_weights_that_are_no_numbers(tmp_path: Path) -> None:
    tensors = create_classifier("resnet18", num_classes=5, **SMALL).state_dict()
    tensors["layer1.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"NaN or infinity(?s:.)*layer1.0.conv1.weight"):
        create_model("resnet18", pretrained=str(written(tmp_path, tensors)), num_classes=5, **SMALL)


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_c04_pickles_are_never_run(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(b"\x80\x02cposix\nsystem\nX\x0e\x00\x00\x00touch /tmp/runq\x00\x85R.")
    with pytest.raises(ModelError, match="a pickle, which is never loaded"):
        create_model("resnet18", pretrained=str(file))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_c02_truncated_weights(share: float, tmp_path: Path) -> None:
    file = weights(tmp_path, num_classes=5, **SMALL)
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(ModelError, match="no whole safetensors file"):
        create_model("resnet18", pretrained=str(file), num_classes=5, **SMALL)


def test_a_picture_is_told_to_be_none(tmp_path: Path) -> None:
    file = tmp_path / "cat.jpg"
    file.write_bytes(hostile.encode(hostile.random_pixels(8, 8, 3), "JPEG"))
    with pytest.raises(ModelError, match=r"holds no weights(?s:.)*cat.jpg(?s:.)*a safetensors file"):
        create_model("resnet18", pretrained=str(file))


def test_a_path_and_text_name_the_same_file(tmp_path: Path) -> None:
    file = weights(tmp_path, num_classes=5, **SMALL)
    models = [create_classifier("resnet18", pretrained=source, num_classes=5, **SMALL) for source in (file, str(file))]
    assert all(torch.equal(v, models[1].state_dict()[k]) for k, v in models[0].state_dict().items())
    folder = create_classifier("resnet18", pretrained=tmp_path, num_classes=5, **SMALL)
    assert torch.equal(folder.state_dict()["fc.bias"], models[0].state_dict()["fc.bias"])


@pytest.mark.parametrize("source", ["", 1, 0, None])
def test_what_names_no_weights(source: Any) -> None:
    with pytest.raises((UsageError, ModelError)):
        create_model("resnet18", pretrained=source)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("resnet18.a1_in1k", True),
        ("hf-hub:timm/resnet18.a1_in1k", True),
        ("timm/resnet18.a1_in1k", False),
        ("resnet18", "timm/resnet18.a1_in1k"),
        ("resnet18", "hf_hub:timm/resnet18.a1_in1k"),
    ],
)
def test_the_spelling_of_other_libraries_is_answered_with_ours(name: str, source: Any) -> None:
    with pytest.raises(UsageError, match=r"try: .*hf:timm/resnet18\.a1_in1k"):
        create_model(name, pretrained=source)


def test_exits_that_are_added_begin_anew(tmp_path: Path) -> None:
    file = weights(tmp_path, num_classes=5)
    model = create_classifier("resnet18", pretrained=file, num_classes=5, exits=True)
    whole = create_classifier("resnet18", pretrained=file, num_classes=5)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in whole.state_dict().items())


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there are no weights"):
        create_model("resnet18", pretrained=str(tmp_path / "absent.safetensors"))
    with pytest.raises(UsageError, match=r"msresnet18 has no published weights(?s:.)*resnet18"):
        create_model("msresnet18", pretrained=True)


def test_counts_of_batches_may_be_missing_and_unused_tensors_may_be_there(tmp_path: Path) -> None:
    """As in old files; DLA's authors also left projections in theirs that nothing reads."""
    tensors = randomised(create_classifier("dla34", num_classes=5)).state_dict()
    old = {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
    old["level3.project.0.weight"] = torch.zeros(128, 64, 1, 1)
    model = create_classifier("dla34", pretrained=str(written(tmp_path / "old", old)), num_classes=5)
    assert all(torch.equal(v, tensors[k]) for k, v in model.state_dict().items())
    old["level3.surprise.weight"] = torch.zeros(1)
    with pytest.raises(ModelError, match=r"unknown: level3\.surprise\.weight"):
        create_model("dla34", pretrained=str(written(tmp_path / "odd", old)), num_classes=5)


def test_a_licence_is_shown_though_another_program_fetched_the_weights(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    published(hub, tmp_path, licence="cc-by-nc-4.0")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "theirs"))
    for name in ("model.safetensors", "config.json"):
        hf_hub_download("somebody/small.one", name, cache_dir=tmp_path / "theirs")
    create_model("resnet18", pretrained="hf:somebody/small.one", num_classes=7, **SMALL)
    assert "cc-by-nc-4.0" in capsys.readouterr().err


def test_a_backbone_needs_no_classifier_and_a_headless_file_gets_one(tmp_path: Path) -> None:
    file = weights(tmp_path, num_classes=7)
    features = create_model("resnet18", pretrained=file, features_only=True)
    assert isinstance(features, FeatureExtractor)
    tensors = {k: v for k, v in create_classifier("resnet18").state_dict().items() if not k.startswith("fc.")}
    headless = written(tmp_path / "headless", tensors)
    model = create_classifier("resnet18", pretrained=headless, num_classes=3)
    assert torch.equal(model.state_dict()["conv1.weight"], tensors["conv1.weight"])
    with pytest.raises(ModelError, match=r"missing: fc.weight, fc.bias"):
        create_model("resnet18", pretrained=headless)


@pytest.mark.parametrize("shape", [(8,), (8, 0, 7, 7), ()])
def test_tensors_of_another_rank_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    for key in ("conv1.weight", "fc.weight"):
        tensors = create_classifier("resnet18", num_classes=5, **SMALL).state_dict()
        tensors[key] = torch.zeros(shape)
        with pytest.raises(ModelError, match="another shape"):
            create_model("resnet18", pretrained=written(tmp_path / key, tensors), **SMALL)


def test_exits_of_an_msdnet_are_no_addition(tmp_path: Path) -> None:
    layers: dict[str, Any] = {"layers": (1, 1, 1), "num_classes": 5}
    tensors = create_classifier("msdnet24_cifar", **layers).state_dict()
    file = written(tmp_path, {k: v for k, v in tensors.items() if not k.startswith("exits.")})
    with pytest.raises(ModelError, match=r"missing: exits\.0"):
        create_model("msdnet24_cifar", pretrained=file, **layers)


def test_a_bundle_comes_from_the_hub_as_from_a_folder(hub: Hub, tmp_path: Path) -> None:
    task, arguments = ClassificationTask(["a", "b"]), {"num_classes": 2, "in_chans": 1, "img_size": [28, 28]}
    model = randomised(create_classifier("msresnet_micro", **arguments))
    assert isinstance(model, ImageModel)
    folder = Bundle(model, "msresnet_micro", arguments, task, Preprocess((28, 28), 1)).save(tmp_path / "bundle")
    files = {p.name.replace(".", "__"): p.read_bytes() for p in folder.iterdir()}
    hub.publish("somebody/digits", **files)
    loaded = load_bundle("hf:somebody/digits")
    assert loaded.task.class_names == ("a", "b")
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in loaded.model.state_dict().items())
    with pytest.raises(ModelError, match="the hub answered 404"):
        load_bundle("hf:nobody/nothing")
    published(hub, tmp_path)
    hub.asked.clear()
    with pytest.raises(ModelError, match=r"no format_version(?s:.)*msresnet train --weights"):
        load_bundle("hf:somebody/small.one")
    assert not [asked for asked in hub.asked if asked.endswith(".safetensors")]


def test_weights_that_were_fetched_before_serve_a_bundle(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two files then lie in two caches."""
    arguments = {"num_classes": 2, "in_chans": 1, "img_size": [28, 28]}
    model = create_classifier("msresnet_micro", **arguments)
    task, preprocess = ClassificationTask(["a", "b"]), Preprocess((28, 28), 1)
    folder = Bundle(model, "msresnet_micro", arguments, task, preprocess).save(tmp_path / "bundle")
    hub.publish("somebody/digits", **{p.name.replace(".", "__"): p.read_bytes() for p in folder.iterdir()})
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "theirs"))
    hf_hub_download("somebody/digits", "model.safetensors", cache_dir=tmp_path / "theirs")
    assert load_bundle("hf:somebody/digits").task.class_names == ("a", "b")
