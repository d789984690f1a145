"""The routes of the page: its files, what it is told of the models, and POST /explain."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Request, Response

from msresnet.serve.failures import MALFORMED, Refusal
from msresnet.serve.models import Models
from msresnet.serve.multipart import FORM, fields
from msresnet.serve.page.explainer import Explainer
from msresnet.serve.page.shown import described, examples

INDEX = "index.html"
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
PARTS = ("page.css", "page.js", "answer.js", "ask.js", "board.js", "slot.js", "icon.svg")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
ASKED: dict[str, Any] = {
    "type": "object",
    "required": ["image"],
    "properties": {
        "image": {"type": "string", "format": "binary", "description": "an image's file"},
        "class": {"type": "string", "description": "what to look for; by default the class that is answered"},
    },
}
BODY = {"required": True, "content": {FORM: {"schema": ASKED}}}
FAILURES: dict[int | str, dict[str, Any]] = {
    400: {"description": "no such form, or no such class"},
    404: {"description": "no such model"},
    422: {"description": "no readable image"},
    429: {"description": "too many are waiting"},
    501: {"description": "an exported model cannot be explained"},
    503: {"description": "the model's files have changed"},
}


def router(models: Models) -> APIRouter:
    """The page at / and what it asks for."""
    routes, explainer = APIRouter(), Explainer()

    @routes.get("/", include_in_schema=False)
    def page() -> Response:
        return _file(INDEX)

    @routes.get("/page/models", include_in_schema=False)
    def shown() -> list[dict[str, Any]]:
        return [described(served.name, served.trained, explains(served.describe())) for served in models.all]

    @routes.get("/page/examples", include_in_schema=False)
    def pictures(model: str | None = None) -> list[dict[str, str]]:
        return examples(models.get(model).trained)

    @routes.get("/page/{name}", include_in_schema=False)
    def part(name: str) -> Response:
        if name not in PARTS:
            raise Refusal(404, "the page has no such part")
        return _file(name)

    @routes.post("/explain", openapi_extra={"requestBody": BODY}, responses=FAILURES)
    async def explain(request: Request, model: str | None = None) -> dict[str, Any]:
        """Where on an image, and in details of which size, a model finds a class."""
        served = models.get(model)
        if not explains(served.describe()):
            why = "it answers, but only the bundle that it was made from can be explained"
            raise Refusal(501, "this is an exported model", why=why)
        given = fields(await request.body(), request.headers.get("content-type", ""))
        if "image" not in given:
            raise Refusal(MALFORMED, "the form has no field 'image'")
        name = given["class"].decode("utf-8", "replace") if "class" in given else None
        return await explainer(served, await models.decode(given["image"], "image", served), name)

    return routes


def explains(description: dict[str, Any]) -> bool:
    """Whether a model can be explained."""
    return bool(description["can_explain"])


def _file(name: str) -> Response:
    kind = TYPES[name.rpartition(".")[2]]
    return Response((files("msresnet.serve.page") / name).read_bytes(), media_type=kind, headers=HEADERS)
