"""The Open Inference Protocol, version 2, over REST: what tritonclient and its like speak."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, Response

from msresnet.errors import MsresnetError
from msresnet.infer.backend import INPUT
from msresnet.serve import inference
from msresnet.serve.asking import ask_files, ask_pixels
from msresnet.serve.documented import INFER_ANSWER, INFER_REQUEST, answers, body
from msresnet.serve.failures import BUSY, UNUSABLE, Refusal
from msresnet.serve.models import Models
from msresnet.serve.served import VERSION, Served

EXTENSIONS = ["binary_tensor_data", "model_repository"]
INFER_BODY = body({inference.JSON: INFER_REQUEST, inference.BINARY: {"type": "string", "format": "binary"}})
Length = Annotated[str | None, Header(alias=inference.HEADER, description="Bytes of the JSON before binary tensors")]


def router(models: Models, release: str) -> APIRouter:
    """The routes below /v2."""
    routes = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])

    @routes.get("", responses=answers())
    async def server() -> JSONResponse:
        """What server this is."""
        return JSONResponse({"name": "msresnet", "version": release, "extensions": EXTENSIONS})

    @routes.get("/health/live")
    async def live() -> JSONResponse:
        """Whether the server runs."""
        return JSONResponse({"live": True})

    @routes.get("/health/ready", responses=answers(503))
    async def ready() -> JSONResponse:
        """Whether every model can answer."""
        _require(models.ready)
        return JSONResponse({"ready": True})

    @routes.get("/models/{model}", responses=answers(400, 404))
    @routes.get("/models/{model}/versions/{version}", responses=answers(400, 404))
    async def metadata(model: str, version: str = VERSION) -> JSONResponse:
        """What goes into a model and what comes out."""
        return JSONResponse(_metadata(_find(models, model, version)))

    @routes.get("/models/{model}/ready", responses=answers(400, 404, 503))
    @routes.get("/models/{model}/versions/{version}/ready", responses=answers(400, 404, 503))
    async def model_ready(model: str, version: str = VERSION) -> JSONResponse:
        """Whether a model can answer."""
        _require(_find(models, model, version).ready)
        return JSONResponse({"name": model, "ready": True})

    known = answers(400, 404, 408, 413, 415, 422, 503, good=INFER_ANSWER)

    @routes.post("/models/{model}/infer", responses=known, openapi_extra=INFER_BODY)
    @routes.post("/models/{model}/versions/{version}/infer", responses=known, openapi_extra=INFER_BODY)
    async def infer(request: Request, model: str, version: str = VERSION, length: Length = None) -> Response:
        """Answers about images."""
        sent = await request.body()
        served = _find(models, model, version)
        preprocess = served.trained.preprocess
        shape = (preprocess.channels, *preprocess.size)
        asked = inference.read_request(sent, length, shape, models.config.max_images)
        if asked.pixels is None:
            found, _ = await ask_files(models, served, asked.files, asked.timeout)
        else:
            found, _ = await ask_pixels(models, served, asked.pixels, asked.timeout)
        content, headers = inference.write_answer(asked, model, version, found.tensors())
        return Response(content, headers=headers)

    @routes.post("/repository/index", responses=answers())
    async def index() -> JSONResponse:
        """All models."""
        states = [{"name": m.name, "version": VERSION, "state": _state(m), "reason": ""} for m in models.all]
        return JSONResponse(states)

    @routes.post("/repository/models/{model}/load", responses=answers(400, 404, 422))
    async def load(model: str) -> JSONResponse:
        """Reload a model from where it came from; the old one answers until the new one can."""
        try:
            await models.reload(model)
        except MsresnetError as error:
            raise Refusal(UNUSABLE, error.what, hint="the server's own log says more; the old model stays") from error
        return JSONResponse({})

    return routes


def _find(models: Models, name: str, version: str) -> Served:
    """A model by name and version. Raises Refusal 404."""
    served = models.get(name)
    if version != VERSION:
        raise Refusal(404, "there is no such version of the model", hint=VERSION)
    return served


def _require(ready: bool) -> None:
    if not ready:
        raise Refusal(BUSY, "not ready", retry_after=1)


def _state(model: Served) -> str:
    return "READY" if model.ready else "UNAVAILABLE"


def _metadata(served: Served) -> dict[str, Any]:
    preprocess = served.trained.preprocess
    shape = [-1, preprocess.channels, *preprocess.size]
    return {
        "name": served.name,
        "versions": [VERSION],
        "platform": f"msresnet_{served.started.backend}",
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": shape}],
        "outputs": [
            {"name": name, "datatype": inference.datatype(array), "shape": [-1, *array.shape[1:]]}
            for name, array in served.loaded.sample.tensors().items()
        ],
    }
