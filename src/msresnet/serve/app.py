"""The routes together, and what is answered when one of them refuses."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from msresnet.errors import MsresnetError
from msresnet.serve import plain, protocol
from msresnet.serve.failures import MALFORMED, Refusal, refusal
from msresnet.serve.metrics import Metrics
from msresnet.serve.models import Models
from msresnet.serve.page import routes as page

ABOUT = "Image recognition: POST an image to /predict, or speak the Open Inference Protocol below /v2."


def build(models: Models, metrics: Metrics, release: str) -> FastAPI:
    """The application. Its documentation has no page of its own: FastAPI's would load scripts from elsewhere."""
    app = FastAPI(title="msresnet", version=release, description=ABOUT, docs_url=None, redoc_url=None)
    app.include_router(plain.router(models, metrics))
    app.include_router(protocol.router(models, release))
    app.include_router(page.router(models))
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(MsresnetError, _failed)
    app.add_exception_handler(HTTPException, _unknown)
    app.add_exception_handler(RequestValidationError, _invalid)
    return app


def _answer(refused: Refusal) -> JSONResponse:
    return JSONResponse(refused.body(), refused.status, refused.headers())


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refusal)
    return _answer(error)


async def _failed(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, MsresnetError)
    return _answer(refusal(error))


async def _unknown(request: Request, error: Exception) -> JSONResponse:
    """A path or a method that there is not."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": str(error.detail).lower()}, error.status_code, error.headers)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """A parameter that cannot be; named, and nothing of the framework told."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = str(first["loc"][-1])[:60]
    return _answer(Refusal(MALFORMED, f"the parameter {where!r} cannot be used", why=str(first["msg"])))
