"""What errors of others come to in our messages."""

from __future__ import annotations

import pytest

from msresnet.errors import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("the cause\n  and its trace"), "the cause"),
        (ValueError("\n \nthe cause"), "the cause"),
        (ValueError(), "ValueError"),
        (RuntimeError("\n"), "RuntimeError"),
        (KeyError("name"), "'name'"),
        (ValueError("x" * 500), "x" * 200),
    ],
)
def test_the_first_line_says_something_whatever_an_error_says(error: Exception, line: str) -> None:
    assert first_line(error) == line


def test_the_first_line_is_as_long_as_it_may_be() -> None:
    assert first_line(ValueError("x" * 500), 300) == "x" * 300
