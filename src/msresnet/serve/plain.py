"""The short way in: an image by POST /predict; and what is served, how the server is, and its counts."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from msresnet.serve.asking import ask_files
from msresnet.serve.documented import FILE, PREDICT_ANSWER, answers, body
from msresnet.serve.failures import BUSY, MALFORMED, Refusal
from msresnet.serve.metrics import CONTENT_TYPE, Metrics
from msresnet.serve.models import Models
from msresnet.serve.multipart import FORM, fields
from msresnet.serve.page.pictures import drawn
from msresnet.serve.served import VERSION

FIELD = "image"
IMAGES = ("image/", "application/octet-stream")
FORM_SCHEMA = {"type": "object", "properties": {FIELD: FILE}, "required": [FIELD]}
PREDICT_BODY = body({FORM: FORM_SCHEMA, "image/*": FILE, "application/octet-stream": FILE})
Name = Annotated[str | None, Query(description="Which model; the first where nothing is said")]
Top = Annotated[int, Query(ge=1, le=1000, description="How many classes to list")]
Score = Annotated[
    float | None, Query(ge=0, le=1, description="The lowest score of a box; the model's own where nothing is said")
]
Draw = Annotated[bool, Query(description="Add pictures of answers that are not text")]


def router(models: Models, metrics: Metrics) -> APIRouter:
    """The routes that need no protocol."""
    routes = APIRouter(tags=["Plain"])
    known = answers(400, 404, 408, 413, 415, 422, 503, good=PREDICT_ANSWER)

    @routes.post("/predict", responses=known, openapi_extra=PREDICT_BODY)
    async def predict(
        request: Request, model: Name = None, top: Top = 5, draw: Draw = False, score: Score = None
    ) -> JSONResponse:
        """Say what is on an image: the field `image` of a form, or the file itself."""
        data = image_of(await request.body(), request.headers.get("content-type", ""))
        served = models.get(model)
        postprocess = served.trained.postprocess
        if score is not None and postprocess.rules is None:
            why = f"the model's task is {postprocess.task}"
            raise Refusal(MALFORMED, "a score has no effect here", why=why, hint="leave it out")
        (results, _, _), timing = await ask_files(models, served, [data], score=score)
        result: dict[str, Any] = results.to_dict(top)[0]
        if draw:
            result |= drawn(results)
        return JSONResponse({"model": served.name, "version": VERSION, "result": result, "timing": timing})

    @routes.get("/models", responses=answers())
    async def shown() -> JSONResponse:
        """What is served."""
        return JSONResponse({"models": [served.describe() for served in models.all]})

    @routes.get("/health", responses=answers(503))
    async def health() -> JSONResponse:
        """Whether every model can answer."""
        if not models.ready:
            raise Refusal(BUSY, "not ready", retry_after=1)
        return JSONResponse({"ready": True})

    @routes.get("/metrics", responses=answers(), response_class=Response)
    async def counted() -> Response:
        """Counts and times in Prometheus' text format."""
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    return routes


def image_of(data: bytes, content_type: str) -> bytes:
    """The file of an image from a body. Raises Refusal for a body that holds none."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == FORM:
        found = fields(data, content_type)
        if FIELD not in found:
            raise Refusal(MALFORMED, f"the form has no field {FIELD!r}", hint=f"curl -F {FIELD}=@photo.jpg")
        data = found[FIELD]
    elif kind and not kind.startswith(IMAGES):
        hint = f"curl -F {FIELD}=@photo.jpg, or -H 'Content-Type: image/jpeg' --data-binary @photo.jpg"
        raise Refusal(415, "this is neither an image nor a form", why=kind, hint=hint)
    if not data:
        raise Refusal(MALFORMED, "the request holds no image", hint=f"curl -F {FIELD}=@photo.jpg")
    return data
