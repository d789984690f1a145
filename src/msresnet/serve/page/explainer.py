"""Explanations, one at a time, in a thread beside the answers; a few wait, more are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anyio import CapacityLimiter, from_thread, to_thread

from msresnet.serve.failures import BUSY, Refusal
from msresnet.serve.served import Ready, Served, Signature, signature

if TYPE_CHECKING:
    from msresnet.bundle import Bundle

MOST_WAITING, PAUSE = 4, 2
"""Explanations that wait for the one at work, and the seconds after which it is worth asking again."""


class Explainer:
    """Loads a model's bundle when it is first asked about, and again when the server has a newer one."""

    def __init__(self) -> None:
        self.limiter = CapacityLimiter(1)
        self.loaded: dict[str, tuple[Served, Bundle]] = {}
        self.told: dict[str, Signature] = {}

    async def __call__(self, served: Served, ready: Ready, name: str | None) -> dict[str, Any]:
        """Why an image is, or is not, of the class of that name; None: of the one that is answered.

        Raises Refusal 429 where too many wait and 503 where the model's files are no longer those that answer,
        UsageError for an unknown class, ModelError for an unusable model.
        """
        if self.limiter.statistics().tasks_waiting >= MOST_WAITING:
            raise Refusal(429, "other explanations are being made", retry_after=PAUSE)
        return await to_thread.run_sync(self._explained, served, ready, name, limiter=self.limiter)

    def _explained(self, served: Served, ready: Ready, name: str | None) -> dict[str, Any]:
        from msresnet.serve.page.explain import explanation

        known = self.loaded.get(served.name)
        if known is None or known[0] is not served:
            known = self.loaded[served.name] = served, self._bundle(served)
        return explanation(known[1], ready.image, ready.frame.size, name)

    def _bundle(self, served: Served) -> Bundle:
        """The model that the workers have. Where its files are others by now, the server hears of these, once."""
        from msresnet.bundle import load_bundle  # torch, which only explanations need in this process

        bundle, files = load_bundle(served.path), signature(served.path)
        if files == served.loaded.files:
            return bundle
        if self.told.get(served.name) != files:
            self.told[served.name] = files
            from_thread.run_sync(served.changed, served.name)
        why = "it is reloaded, if its new files can be used"
        raise Refusal(BUSY, "the model's files have changed", why=why, retry_after=PAUSE)
