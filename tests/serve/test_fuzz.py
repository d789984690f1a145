"""Requests that a machine makes up from the server's own OpenAPI document: none of them is a bug of the server's."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from msresnet.serve.failures import Refusal
from msresnet.serve.inference import read_request
from msresnet.serve.multipart import fields
from serving import Serving
from sharding import SIDE

BUSY, WITHOUT = 503, 501
"""Statuses above 499 that are answers: come again, and what exported models cannot do."""


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_F17_made_up_requests(mode: GenerationMode, unharmed: Serving) -> None:
    api: Any = schemathesis.openapi.from_url(str(unharmed.client.base_url.join("/openapi.json")))
    operations = [found.ok() for found in api.get_all_operations()]
    assert len(operations) > 15
    asked = [make_up(operation, mode) for operation in operations]
    assert asked.count(True) > (15 if mode is GenerationMode.POSITIVE else 5)


def make_up(operation: Any, mode: GenerationMode) -> bool:
    """Ask one route for what its document allows, or for what it does not; whether there is such a thing."""

    @settings(max_examples=12, suppress_health_check=list(HealthCheck))
    @given(operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        response = case.call()
        assert response.status_code < 500 or response.status_code in (BUSY, WITHOUT), response.text
        assert mode is GenerationMode.POSITIVE or response.status_code >= 400
        if response.status_code >= 400:
            assert response.json()["error"]

    try:
        ask()
    except Unsatisfiable:  # a route that takes nothing can be asked for nothing wrong
        return False
    return True


@given(st.binary(max_size=300), st.one_of(st.none(), st.text(max_size=8), st.integers(0, 300).map(str)))
def test_F17_bytes_that_are_no_request(body: bytes, header: str | None) -> None:
    with pytest.raises(Refusal):
        read_request(body, header, (1, SIDE, SIDE), 4)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "name": st.just("images"),
            "datatype": st.sampled_from(["UINT8", "BYTES"]),
            "shape": JSON,
            "data": JSON,
            "parameters": JSON,
        },
    ),
    JSON,
    JSON,
)
def test_F17_JSON_that_is_no_request(tensor: dict[str, Any], outputs: Any, parameters: Any) -> None:
    """Nothing but a refusal comes out, or a request."""
    body = json.dumps({"inputs": [tensor], "outputs": outputs, "parameters": parameters}).encode()
    try:
        request = read_request(body, None, (1, SIDE, SIDE), 4)
    except Refusal:
        pass
    else:
        assert len(request) <= 4


NAMES = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8)


@given(st.dictionaries(NAMES, st.binary(max_size=100), max_size=10))
def test_forms_come_apart_as_httpx_puts_them_together(sent: dict[str, bytes]) -> None:
    files = {name: ("x", data) for name, data in sent.items()}
    request = httpx.Request("POST", "http://x", files=files)
    if sent:
        assert fields(request.read(), request.headers["content-type"]) == sent


@given(st.binary(max_size=400), st.integers(0, 399))
def test_F17_damaged_forms(noise: bytes, place: int) -> None:
    whole = b'--B\r\nContent-Disposition: form-data; name="image"\r\n\r\nabc\r\n--B--\r\n'
    body = whole[:place] + noise + whole[place:]
    try:
        found = fields(body, "multipart/form-data; boundary=B")
    except Refusal:
        pass
    else:
        assert all(len(data) <= len(body) for data in found.values())
