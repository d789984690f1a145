"""Why a request is not answered, as an HTTP status and a few words; nothing of the server's insides is told.

400 malformed · 401 key · 404 no such · 408 too slow · 413 too large · 415 no such kind · 422 undecodable ·
429 or 503 too much, with Retry-After.
"""

from __future__ import annotations

from typing import Any

from msresnet.errors import DataError, MsresnetError, UsageError

BUSY, UNUSABLE, MALFORMED = 503, 422, 400
CLIENT_LEFT = 499
"""What metrics call a request whose client went away; nobody receives it."""
LONGEST = 300
"""Characters of a reason: what a client sent may be part of it."""


class Refusal(Exception):
    """A request that gets no answer.

    Args:
        status: of HTTP.
        what: what is wrong, one sentence.
        why: the rule or the cause.
        hint: what to do.
        retry_after: seconds after which it may go better; None where it will not.
        close: whether the connection ends, because what else comes on it cannot be understood.
    """

    def __init__(
        self,
        status: int,
        what: str,
        *,
        why: str = "",
        hint: str = "",
        retry_after: int | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(what)
        self.status, self.what, self.why, self.hint = status, what, why, hint
        self.retry_after, self.close = retry_after, close

    def body(self) -> dict[str, Any]:
        """The answer: `error`, and `why` and `hint` where there is something to say."""
        texts = {"error": self.what, "why": self.why, "hint": self.hint}
        return {name: text[:LONGEST] for name, text in texts.items() if text}

    def headers(self) -> dict[str, str]:
        """What goes along with it."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        headers |= {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        return headers | ({"Connection": "close"} if self.close else {})


def refusal(error: MsresnetError) -> Refusal:
    """What a client is told of one of our errors: never where, which may be a path of this machine."""
    if _lacks_memory(error):
        return no_memory()
    if isinstance(error, DataError):
        return Refusal(UNUSABLE, error.what, why=error.why, hint=error.hint)
    if isinstance(error, UsageError):
        return Refusal(MALFORMED, error.what, why=error.why, hint=error.hint)
    return Refusal(BUSY, error.what, retry_after=1)


def no_memory() -> Refusal:
    """There is not enough memory for this request now."""
    return Refusal(BUSY, "the server has not enough memory for this", hint="a smaller image", retry_after=1)


def _lacks_memory(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, MemoryError):
        cause = cause.__cause__
    return cause is not None
