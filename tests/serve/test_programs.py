"""Programs that speak the protocol: NVIDIA's client as it is, Prometheus' parser, keys."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException, serialize_byte_tensor

from serving import GOLDEN, SMALL, Serving, asked, offline, outputs, picture, pixels, server
from sharding import NAMES, SIDE

EXACT = 1e-5


@pytest.fixture
def client(unharmed: Serving) -> Any:
    return triton.InferenceServerClient(f"127.0.0.1:{unharmed.port}")


def given(images: Any, binary: bool) -> Any:
    tensor = triton.InferInput("images", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images, binary_data=binary)
    return tensor


def test_H25_tritonclient_finds_its_way(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("m")
    assert client.is_model_ready("m", "1")
    assert not client.is_model_ready("m", "2")
    assert not client.is_model_ready("other")
    assert client.get_server_metadata()["name"] == "msresnet"
    metadata = client.get_model_metadata("m")
    assert metadata["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 1, SIDE, SIDE]}]
    known = {out["name"]: (out["datatype"], out["shape"]) for out in metadata["outputs"]}
    assert known["outputs"] == ("FP32", [-1, 3])
    assert known["probabilities"] == ("FP32", [-1, 3])
    assert known["labels"] == ("BYTES", [-1])
    assert client.get_model_repository_index()[0]["state"] == "READY"
    client.load_model("m")


@pytest.mark.parametrize("into", [False, True])
@pytest.mark.parametrize("out", [False, True])
def test_H25_tritonclient_asks_in_json_and_binary(into: bool, out: bool, client: Any, model: Path) -> None:
    images = pixels(5)
    names = ("outputs", "probabilities", "labels", "answers")
    wanted = [triton.InferRequestedOutput(name, binary_data=out) for name in names]
    found = client.infer("m", [given(images, into)], outputs=wanted, request_id="seven")
    truth = outputs(model, images)
    np.testing.assert_allclose(found.as_numpy("outputs"), truth, atol=EXACT)
    softmax = np.exp(truth) / np.exp(truth).sum(1, keepdims=True)
    np.testing.assert_allclose(found.as_numpy("probabilities"), softmax, atol=EXACT)
    labels = [text.decode() if isinstance(text, bytes) else text for text in found.as_numpy("labels")]
    assert labels == [NAMES[index] for index in truth.argmax(1)]
    assert [json.loads(text)["label"] for text in found.as_numpy("answers")] == labels
    assert found.get_response()["id"] == "seven"


def test_H25_tritonclient_without_a_wish_gets_everything(client: Any, model: Path) -> None:
    images = pixels(3)
    for packed in (None, "gzip", "deflate"):
        found = client.infer("m", [given(images, True)], request_compression_algorithm=packed)
        np.testing.assert_allclose(found.as_numpy("outputs"), outputs(model, images), atol=EXACT)
        assert found.as_numpy("labels").shape == (3,)


def test_H25_tritonclient_sends_files(client: Any, model: Path) -> None:
    files = [picture(seed) for seed in range(3)]
    tensor = triton.InferInput("images", [3], "BYTES")
    tensor.set_data_from_numpy(np.array(files, object))
    found = client.infer("m", [tensor])
    assert [json.loads(text)["top"] for text in found.as_numpy("answers")] == [r["top"] for r in offline(model, files)]
    assert serialize_byte_tensor(np.array(files, object)).item()


def test_H25_tritonclient_is_told_what_is_wrong(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="no such model") as caught:
        client.infer("other", [given(pixels(1), True)])
    assert caught.value.status() == "404"
    with pytest.raises(InferenceServerException, match="wrong shape"):
        client.infer("m", [given(pixels(1)[:, :, :5], True)])
    with pytest.raises(InferenceServerException, match="in time"):
        client.infer("m", [given(pixels(1), True)], timeout=1)


def test_files_in_json_are_base64(unharmed: Serving, model: Path) -> None:
    files = [picture(seed) for seed in range(2)]
    texts = [base64.b64encode(data).decode() for data in files]
    for shape, data in (([2], texts), ([2, 1], [[text] for text in texts])):
        tensor = {"name": "images", "datatype": "BYTES", "shape": shape, "data": data}
        answer = unharmed.infer({"inputs": [tensor], "outputs": [{"name": "labels"}]}).json()
        assert answer["outputs"][0]["data"] == [row["label"] for row in offline(model, files)]


def test_nested_and_flat_data_are_the_same(unharmed: Serving) -> None:
    images = pixels(2)
    flat, nested = unharmed.infer(asked(images)), unharmed.infer(asked(images, data=images.tolist()))
    assert flat.json() == nested.json()


def test_an_image_is_sent_in_several_ways(unharmed: Serving, golden: dict[str, Any]) -> None:
    ways: list[dict[str, Any]] = [
        {"files": {"image": ("x.png", GOLDEN)}},
        {"files": {"image": (None, GOLDEN)}},
        {"files": {"other": b"y", "image": GOLDEN}},
        {"content": GOLDEN, "headers": {"Content-Type": "image/png"}},
        {"content": GOLDEN, "headers": {"Content-Type": "application/octet-stream"}},
        {"content": GOLDEN},
        {"content": gzip.compress(GOLDEN), "headers": {"Content-Encoding": "gzip", "Content-Type": "image/png"}},
    ]
    for way in ways:
        answer = unharmed.post("/predict", **way).json()
        assert answer["result"] == golden
        assert (answer["model"], answer["version"]) == ("m", "1")
        assert answer["timing"]["total_ms"] >= answer["timing"]["compute_ms"] > 0
    one = unharmed.predict(GOLDEN, params={"model": "m", "top": 1}).json()["result"]
    assert one["top"] == golden["top"][:1]


def test_what_is_served_is_described(unharmed: Serving) -> None:
    (shown,) = unharmed.get("/models").json()["models"]
    assert shown["class_names"] == NAMES
    assert shown["input"] == {"height": SIDE, "width": SIDE, "channels": 1}
    assert shown["ready"]
    assert not shown["can_explain"]
    assert shown["params"] > 100_000
    paths = unharmed.get("/openapi.json").json()["paths"]
    assert {"/predict", "/models", "/v2/models/{model}/infer", "/metrics"} <= paths.keys()
    assert unharmed.get("/docs").status_code == 404


def test_H26_metrics_add_up(unharmed: Serving) -> None:
    before = unharmed.counts()
    good, bad, images = 7, 4, 0
    for number in range(good):
        unharmed.infer(asked(pixels(number + 1)))
        images += number + 1
    for _ in range(bad):
        unharmed.predict(b"no image")
    after = unharmed.counts()

    def more(name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    statuses = [name for name in after if name.startswith("msresnet_requests_total")]
    assert more("msresnet_requests_total{status=200}") == good + 1  # and /metrics itself
    assert more("msresnet_requests_total{status=422}") == bad
    assert sum(after[name] for name in statuses) == after["msresnet_request_seconds_count{}"]
    assert after["msresnet_request_seconds_bucket{le=+Inf}"] == after["msresnet_request_seconds_count{}"]
    assert more("msresnet_images_total{}") == images
    assert more("msresnet_batch_images_sum{}") == images
    assert after["msresnet_batch_images_count{}"] == after["msresnet_batch_seconds_count{}"]
    assert after["msresnet_queue_images{}"] == 0
    assert after["msresnet_requests_active{}"] == 1


def test_no_torch_where_none_is_needed(unharmed: Serving) -> None:
    (worker,) = unharmed.workers()
    for process in (unharmed.process.pid, worker):
        assert "torch" not in Path(f"/proc/{process}/maps").read_text()


KEY = "correct-horse-battery-staple"


def test_H18_the_key(model: Path, tmp_path: Path, golden: dict[str, Any]) -> None:
    (tmp_path / "key").write_text(KEY + "\n")
    words = ["--model", str(model), *SMALL, "--api-key-file", "key", "--access-log"]
    with server(tmp_path, *words) as serving:
        wrong = [
            {},
            {"Authorization": "Bearer"},
            bearer(KEY[:-1]),
            bearer(KEY + "x"),
            {"X-API-Key": "x"},
            {"Authorization": KEY},
        ]
        for headers in [*wrong, {"Authorization": "Basic " + KEY}, {"X-API-Key": b"\xff\xfe"}]:
            response = serving.predict(GOLDEN, headers=headers)
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
            assert response.json()["error"]
        page = ("/page/models", "/page/examples", "/page/examples?model=x")
        for path in ("/models", "/v2", "/v2/models/m", "/metrics", "/openapi.json", "/nothing", *page):
            assert serving.get(path).status_code == 401
        for path in ("/health", "/v2/health/live", "/v2/health/ready", "/"):
            assert serving.get(path).status_code == 200
        for headers in (bearer(KEY), {"X-API-Key": KEY}, {"Authorization": f"bearer {KEY}"}):
            assert serving.predict(GOLDEN, headers=headers).json()["result"] == golden
        client = triton.InferenceServerClient(f"127.0.0.1:{serving.port}")
        assert client.infer("m", [given(pixels(1), True)], headers=bearer(KEY)).as_numpy("labels").shape == (1,)
        assert "POST /predict 401" in serving.text
        assert KEY not in serving.text
    with server(tmp_path, "--model", str(model), *SMALL, MSRESNET_API_KEY=KEY) as serving:
        assert serving.predict(GOLDEN).status_code == 401
        assert serving.predict(GOLDEN, headers=bearer(KEY)).status_code == 200


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_H18_keys_are_compared_in_constant_time() -> None:
    """The comparison is the standard library's, which looks at every byte; times themselves are noise."""
    from msresnet.serve import guard

    assert "hmac.compare_digest(brought, self._key)" in Path(guard.__file__).read_text(encoding="utf-8")
