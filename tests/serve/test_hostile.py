"""HTTP as strangers send it: each is refused with the right status, and the server is as it was."""

from __future__ import annotations

import gzip
import json
import re
import struct
import time
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest

import hostile
from msresnet.serve.failures import Refusal
from msresnet.serve.inference import read_request
from msresnet.serve.multipart import MOST_PARTS, fields
from serving import GOLDEN, Serving, asked, pixels, status_of
from sharding import SIDE

LIMIT = 1 << 20
JPEG = {"Content-Type": "image/jpeg"}
TELLTALE = re.compile(r"Traceback|File \"|/(tmp|work|home|usr|root)/|0x[0-9a-f]{6}|<_io|\.py\b|site-packages")


def is_refused(response: Any, *statuses: int) -> None:
    """One of these statuses, in JSON, with words, and nothing of the server's insides."""
    assert response.status_code in statuses, response.text
    body = response.json()
    assert body["error"]
    assert set(body) <= {"error", "why", "hint"}
    assert not TELLTALE.search(response.text), response.text
    assert (response.status_code in (429, 503)) == ("retry-after" in response.headers)


def test_H01_no_body(unharmed: Serving) -> None:
    is_refused(unharmed.post("/predict"), 400)
    is_refused(unharmed.infer(b""), 400)
    is_refused(unharmed.post("/predict", files={"image": ("x.png", b"")}), 400)


@pytest.mark.parametrize(
    "body", [b"{", b"\xff\xfe", b"NaN", b"[]", b'"x"', b"null", b"1" * 5000, b'{"inputs": NaN}', b"{'inputs': []}"]
)
def test_H02_what_is_no_JSON(body: bytes, unharmed: Serving) -> None:
    is_refused(unharmed.infer(body), 400)


@pytest.mark.parametrize("depth", [120, 250_000])
def test_H03_deep_JSON(depth: int, unharmed: Serving) -> None:
    is_refused(unharmed.infer(b"[" * depth + b"]" * depth), 400)
    text = json.dumps(asked(pixels(1), data="DATA")).replace('"DATA"', "[" * depth + "1" + "]" * depth)
    is_refused(unharmed.infer(text.encode()), 400)
    fits = min(depth, 150_000)
    is_refused(unharmed.infer(b'{"a":' * fits + b"1" + b"}" * fits), 400)


@pytest.mark.parametrize("count", [0, 1, SIDE * SIDE - 1, SIDE * SIDE + 1])
def test_H04_shape_against_data(count: int, unharmed: Serving) -> None:
    is_refused(unharmed.infer(asked(pixels(1), data=[0] * count)), 400)


@pytest.mark.parametrize(
    "shape",
    [
        [-1, 1, SIDE, SIDE],
        [2**31, 1, SIDE, SIDE],
        [2**64, 2**64, 2**64, 2**64],
        [1, 1, SIDE],
        [1, 3, SIDE, SIDE],
        [1, 1, SIDE, SIDE + 1],
        [0, 1, SIDE, SIDE],
        [1.0, 1, SIDE, SIDE],
        [True, 1, SIDE, SIDE],
        ["1", 1, SIDE, SIDE],
        [],
        [1] * 1000,
        None,
        "1",
    ],
)
def test_H05_impossible_shapes(shape: Any, unharmed: Serving) -> None:
    is_refused(unharmed.infer(asked(pixels(1), shape=shape)), 400)


@pytest.mark.parametrize("kind", ["FP32", "FP16", "INT8", "UINT7", "", None, 3, ["UINT8"], "uint8", "BYTES"])
def test_H06_unknown_datatypes(kind: Any, unharmed: Serving) -> None:
    is_refused(unharmed.infer(asked(pixels(1), datatype=kind)), 400)


def test_H07_unknown_models(unharmed: Serving) -> None:
    is_refused(unharmed.infer(asked(pixels(1)), model="other"), 404)
    is_refused(unharmed.predict(GOLDEN, params={"model": "other"}), 404)
    is_refused(unharmed.get("/v2/models/m/versions/2"), 404)
    is_refused(unharmed.post("/v2/models/m/versions/2/infer", content=b"{}"), 404)
    is_refused(unharmed.post("/v2/repository/models/other/load"), 404)
    is_refused(unharmed.get("/nothing"), 404)
    is_refused(unharmed.get("/predict"), 405)


@pytest.mark.parametrize("name", ["..%2f..%2fetc%2fpasswd", "%2e%2e", "m%00", "m%0a", "%ff", "m%2Finfer", "x" * 5000])
def test_H08_names_that_climb(name: str, unharmed: Serving) -> None:
    for path in (f"/v2/models/{name}", f"/v2/models/{name}/ready", f"/page/{name}", f"/{name}"):
        answer = unharmed.raw(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert status_of(answer) in (400, 404, 405)
        assert b"root:" not in answer
        assert not TELLTALE.search(answer.decode())


@pytest.mark.parametrize("length", ["-1", "1000000", "+5", "5.0", "0x10", "", " ", "9" * 30, "\u0665"])
def test_H09_header_lengths_that_do_not_fit(length: str, unharmed: Serving) -> None:
    raw = length.encode()
    headers = b"Inference-Header-Content-Length: " + raw + b"\r\nConnection: close\r\n"
    answer = unharmed.raw(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n" + headers + b"\r\n{}")
    assert status_of(answer) == 400


@pytest.mark.parametrize(
    ("claimed", "sent"),
    [(144, 143), (144, 145), (143, 143), (0, 0), (-1, 144), (10**12, 144), (True, 144), ("144", 144), (144, 0)],
)
def test_H10_binary_sizes_that_disagree(claimed: Any, sent: int, unharmed: Serving) -> None:
    assert SIDE * SIDE == 144
    text = binary({"binary_data_size": claimed})
    headers = {"Inference-Header-Content-Length": str(len(text))}
    is_refused(unharmed.infer(text + bytes(sent), headers=headers), 400)


def binary(parameters: dict[str, Any], **more: Any) -> bytes:
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 1, SIDE, SIDE], "parameters": parameters}
    return json.dumps({"inputs": [tensor | more]}).encode()


@pytest.mark.parametrize(
    "tail",
    [
        b"",
        b"\x01",
        struct.pack("<I", 5) + b"1234",
        struct.pack("<I", 2**32 - 1) + b"x",
        struct.pack("<I", 1) + b"xy",
        struct.pack("<I", 1) + b"x" + struct.pack("<I", 1) + b"y",
    ],
)
def test_H10_lengths_within_binary_files(tail: bytes, unharmed: Serving) -> None:
    text = binary({"binary_data_size": len(tail)}, datatype="BYTES", shape=[1])
    headers = {"Inference-Header-Content-Length": str(len(text))}
    is_refused(unharmed.infer(text + tail, headers=headers), 400, 422)


def test_H10_data_twice_and_bytes_of_nobody(unharmed: Serving) -> None:
    text = binary({"binary_data_size": 144}, data=[0] * 144)
    headers = {"Inference-Header-Content-Length": str(len(text))}
    is_refused(unharmed.infer(text + bytes(144), headers=headers), 400)
    text = json.dumps(asked(pixels(1))).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    is_refused(unharmed.infer(text + bytes(144), headers=headers), 400)


@pytest.mark.parametrize("way", ["plain", "chunked", "gzip", "deflate"])
def test_H11_one_byte_under_and_over_the_limit(way: str, unharmed: Serving) -> None:
    """Under it the body is read, and found to be no image; over it, it is not read."""
    for size, status in ((LIMIT - 1, 422), (LIMIT, 422), (LIMIT + 1, 413)):
        body = b"no image" + bytes(size - 8)
        if way == "chunked":
            response = unharmed.post("/predict", content=iter([body]), headers=JPEG)
        else:
            packed = gzip.compress(body) if way == "gzip" else zlib.compress(body) if way == "deflate" else body
            more = {} if way == "plain" else {"Content-Encoding": way}
            response = unharmed.post("/predict", content=packed, headers=JPEG | more)
        is_refused(response, status)


def test_H11_a_gzip_bomb_is_not_inflated(unharmed: Serving) -> None:
    packed = gzip.compress(bytes(200 << 20), 9)
    assert len(packed) < LIMIT
    is_refused(unharmed.post("/predict", content=packed, headers=JPEG | {"Content-Encoding": "gzip"}), 413)


def test_H11_broken_and_unknown_compression(unharmed: Serving) -> None:
    whole = gzip.compress(GOLDEN)
    for body in (whole[:-9], b"no gzip", whole + b"x", b""):
        is_refused(unharmed.post("/predict", content=body, headers=JPEG | {"Content-Encoding": "gzip"}), 400)
    for name in ("br", "gzip, gzip", "x"):
        is_refused(unharmed.post("/predict", content=whole, headers=JPEG | {"Content-Encoding": name}), 415)
    answer = unharmed.post("/predict", content=whole, headers=JPEG | {"Content-Encoding": "gzip"})
    assert answer.json()["result"]["label"]


def test_H12_a_hundred_thousand_chunks_of_one_byte(unharmed: Serving, golden: dict[str, Any]) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n"
    body = GOLDEN + bytes(100_000 - len(GOLDEN))  # decoders do not mind what follows
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    answer = unharmed.raw(head + b"Connection: close\r\n\r\n" + chunks + b"0\r\n\r\n")
    assert status_of(answer) == 200
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["result"] == golden


def test_H13_forms_that_are_none(unharmed: Serving) -> None:
    many = [(f"f{n}", ("x", b"1")) for n in range(1001)]
    is_refused(unharmed.post("/predict", files=many), 400)
    kind = {"Content-Type": "multipart/form-data; boundary=B"}
    nameless = b"--B\r\nContent-Disposition: form-data\r\n\r\nx\r\n--B--\r\n"
    bare = b"--B\r\n\r\nx\r\n--B--\r\n"
    endless = b'--B\r\nContent-Disposition: form-data; name="image"\r\n\r\nx'
    long = b'--B\r\nContent-Disposition: form-data; name="image"\r\nX: ' + b"x" * 20_000 + b"\r\n\r\nx\r\n--B--\r\n"
    twice = b'--B\r\nContent-Disposition: form-data; name="image"\r\n\r\nx\r\n' * 2 + b"--B--\r\n"
    other = b'--B\r\nContent-Disposition: form-data; name="other"\r\n\r\nx\r\n--B--\r\n'
    for body in (nameless, bare, endless, long, twice, other, b"", b"--B--", b"--C\r\n\r\n--C--", bytes(1000)):
        is_refused(unharmed.post("/predict", content=body, headers=kind), 400)
    for broken in ("multipart/form-data", "multipart/form-data; boundary=", 'multipart/form-data; boundary="'):
        is_refused(unharmed.post("/predict", content=bare, headers={"Content-Type": broken}), 400)


@pytest.mark.parametrize(("again", "words"), [(b"\r\n--Bx", "parts"), (b" ", "blanks"), (b"\t", "blanks")])
def test_H13_forms_that_take_the_parser_long_are_refused_before(again: bytes, words: str) -> None:
    head = b'--B\r\nContent-Disposition: form-data; name="image"\r\n\r\n\r\n--B'
    start = time.process_time()
    with pytest.raises(Refusal, match=words):
        fields(head + again * ((8 << 20) // len(again)), "multipart/form-data; boundary=B")
    assert time.process_time() - start < 0.25


def test_H13_as_many_parts_as_a_form_may_have() -> None:
    part = '\r\n--B\r\nContent-Disposition: form-data; name="f{}"\r\n\r\nx'
    body = "".join(part.format(n) for n in range(MOST_PARTS)).replace("--B\r\n", "--B \r\n").replace(" ", "", 1)
    found = fields(f"{body}\r\n--B--\r\n".encode(), "multipart/form-data; boundary=B")
    assert found == {f"f{n}": b"x" for n in range(MOST_PARTS)}


def test_H13_headers_without_end(unharmed: Serving) -> None:
    many = b"".join(b"X-%d: y\r\n" % n for n in range(1001))
    assert status_of(unharmed.raw(b"GET /health HTTP/1.1\r\nHost: x\r\n" + many + b"\r\n")) in (400, 431)
    long = b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000
    assert status_of(unharmed.raw(long)) == 431
    assert status_of(unharmed.raw(b"GET /" + b"x" * 100_000)) == 431
    assert status_of(unharmed.raw(b"no HTTP at all\r\n\r\n")) == 400


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "http://169.254.169.254/", "file:///etc/passwd", "//x/y"])
def test_H19_H20_addresses_are_no_inputs(url: str, unharmed: Serving) -> None:
    """There is no such feature: an address is text, which is not an image, and nothing is fetched."""
    is_refused(unharmed.predict(url.encode()), 422)
    is_refused(unharmed.post("/predict", data={"image": url}), 415)
    is_refused(unharmed.post("/predict", json={"url": url}), 415)
    is_refused(unharmed.post("/predict", params={"url": url}), 400)
    is_refused(unharmed.infer({"inputs": [{"name": "images", "datatype": "BYTES", "shape": [1], "data": [url]}]}), 400)


def test_H21_two_lengths(unharmed: Serving) -> None:
    both = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    answer = unharmed.raw(both + b"GET /smuggled HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert status_of(answer) == 400
    assert answer.count(b"HTTP/1.1 ") == 1
    twice = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n12345"
    assert status_of(unharmed.raw(twice)) == 400


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-Infinity", "1.5", "-1", "256", "1e400", "null", '"1"', "true", "{}"]
)
def test_H22_numbers_that_are_no_pixels(value: str, unharmed: Serving) -> None:
    text = json.dumps(asked(pixels(1), data="DATA")).replace('"DATA"', "[" + ",".join([value] * 144) + "]")
    is_refused(unharmed.infer(text.encode()), 400)
    if value != "true":  # among numbers it is one
        mixed = text.replace(value, "1").replace("[1,", f"[{value},", 1)
        is_refused(unharmed.infer(mixed.encode()), 400)


@pytest.mark.parametrize("value", [b"[]", b"{}", b'""', b"1.5", b"1e9", b"null"])
def test_H22_more_values_than_images_have_are_refused_before_they_are_read(value: bytes) -> None:
    text = b"[" + (value + b",") * ((8 << 20) // (len(value) + 1)) + b"1]"
    start = time.process_time()
    for shape in ((1, SIDE, SIDE), (3, 224, 224)):
        with pytest.raises(Refusal) as refused:
            read_request(text, None, shape, 64)
        assert refused.value.status == 400
    assert time.process_time() - start < 0.25


@pytest.mark.parametrize("others", ['""', "1"])
def test_H22_a_long_text_is_refused_at_the_cost_of_its_bytes(others: str) -> None:
    """As an array, each of the others would take as much as the longest."""
    text = json.dumps(asked(np.zeros((1, 3, 32, 32), np.uint8), data="DATA"))
    body = text.replace('"DATA"', "[" + ",".join(['"' + "x" * 20_000 + '"', *[others] * 11_000]) + "]").encode()
    tracemalloc.start()
    try:
        with pytest.raises(Refusal) as refused:
            read_request(body, None, (3, 32, 32), 64)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refused.value.status == 400
    assert most < 1 << 20


def test_H22_the_most_images_are_read_in_rows_of_numbers() -> None:
    images, shape = pixels(64), (1, SIDE, SIDE)
    read = read_request(json.dumps(asked(images, data=images.tolist())).encode(), None, shape, 64)
    assert read.pixels is not None
    assert np.array_equal(read.pixels, images)


def test_H23_more_images_than_a_request_may_have(unharmed: Serving) -> None:
    assert len(unharmed.infer(asked(pixels(64))).json()["outputs"][0]["data"]) == 64 * 3
    is_refused(unharmed.infer(asked(pixels(65))), 400)


HOSTILE_FILES = {
    "I01": b"",
    "I02": np.random.default_rng(0).bytes(1000),
    "I03": hostile.truncated_jpeg(),
    "I04": hostile.png_with_a_bad_checksum(),
    "I05": hostile.png_claiming(50_000, 50_000),
    "I06-gif": hostile.gif_bomb(),
    "I06-ico": hostile.ico_bomb(),
    "I07": hostile.bmp_with_an_absurd_width(),
    "above the server's own limit": hostile.png_claiming(9_000, 9_000),
    **{f"I09-{name}": data for name, data in hostile.foreign_formats().items()},
    "a pointer": hostile.LFS_POINTER,
}


@pytest.mark.parametrize("name", HOSTILE_FILES)
def test_H24_hostile_files_are_refused_and_nothing_leaks(name: str, unharmed: Serving) -> None:
    is_refused(unharmed.predict(HOSTILE_FILES[name]), 422 if HOSTILE_FILES[name] else 400)


@pytest.mark.parametrize("seed", range(40))
def test_H24_damaged_files(seed: int, unharmed: Serving) -> None:
    whole = hostile.encode(hostile.random_pixels(16, 16, 3), ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"][seed % 6])
    response = unharmed.predict(hostile.mutated(whole, seed))
    if response.status_code != 200:
        is_refused(response, 422)


@pytest.mark.parametrize("query", ["top=0", "top=-1", "top=x", "top=1e9", "draw=maybe", "top=", "model="])
def test_parameters_that_cannot_be(query: str, unharmed: Serving) -> None:
    is_refused(unharmed.predict(GOLDEN, params=query), 400, 404)


def test_a_request_that_says_too_little(unharmed: Serving) -> None:
    bodies: list[dict[str, Any]] = [
        {},
        {"inputs": []},
        {"inputs": {}},
        {"inputs": [1]},
        {"inputs": [{"name": "images"}]},
        {"inputs": [{"name": "x", "datatype": "UINT8", "shape": [1, 1, SIDE, SIDE], "data": []}]},
        {"inputs": asked(pixels(1))["inputs"] * 2},
        asked(pixels(1)) | {"outputs": [{"name": "nothing"}]},
        asked(pixels(1)) | {"outputs": [{}]},
        asked(pixels(1)) | {"outputs": 1},
        asked(pixels(1)) | {"id": 5},
        asked(pixels(1)) | {"parameters": 5},
        asked(pixels(1)) | {"parameters": {"timeout": "soon"}},
    ]
    for body in bodies:
        is_refused(unharmed.infer(body), 400)
