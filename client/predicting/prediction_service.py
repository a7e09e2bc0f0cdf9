"""Predictions over HTTP, for programs of the site's own machine: the model stays loaded, the state is that of now.

A picture is the body of a request; nothing of it is written to a disk. Whoever reaches the address may ask, so it is
this machine's own, or a socket that only its owner can use.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from fedmunkey.client.predicting.picture_answers import PictureAnswer
from fedmunkey.client.predicting.prediction_metrics import Answered, PredictionMeter
from fedmunkey.client.predicting.warm_predictor import WarmPredictor
from fedmunkey.common.errors import FedmunkeyError
from fedmunkey.common.service.foreign_text import printable

MOST_BYTES = 256 * 2**20
"""Of one picture's file."""

_LONGEST_NAME = 255
_OWN_NAMES = ["127.0.0.1", "localhost", "::1"]
_REFUSED, _TOO_LARGE, _NO_ANSWER = 422, 413, 503


def prediction_application(predictor: WarmPredictor, meter: PredictionMeter | None = None) -> FastAPI:
    """Return the application: `POST /predictions?name=NAME` with a picture as its body, and `GET /health`.

    What cannot be used is answered with 422, what is too large with 413, and everything with 503 while the site does
    not answer; each time with a `reason`. `meter` counts what pictures are answered with.
    """
    meter = meter or PredictionMeter(predictor)
    application = FastAPI(title="fedmunkey predictions", docs_url=None, redoc_url=None, openapi_url=None)
    # A page in a browser of this machine reaches loopback too, under a name of its own.
    application.add_middleware(TrustedHostMiddleware, allowed_hosts=_OWN_NAMES)

    @application.exception_handler(FedmunkeyError)
    async def say_why(_request: Request, error: FedmunkeyError) -> JSONResponse:
        return _reason(_NO_ANSWER, str(error))

    @application.get("/health")
    async def health() -> dict[str, Any]:
        return {"weights": await run_in_threadpool(predictor.weights)}

    @application.post("/predictions")
    async def predict(
        request: Request, name: Annotated[str, Query(max_length=_LONGEST_NAME)] = "picture"
    ) -> JSONResponse:
        """Answer one picture, which is the request's body."""
        body = await _read(request)
        if body is None:
            meter.count(Answered.REFUSED)
            return _reason(_TOO_LARGE, f"a picture's file has {MOST_BYTES // 2**20} MiB at most; make it smaller")
        try:
            with meter.timed():
                answer = await run_in_threadpool(_answer, predictor, body, name)
        except FedmunkeyError:
            meter.count(Answered.UNAVAILABLE)
            raise
        meter.count(Answered.REFUSED if answer.prediction is None else Answered.CLASSIFIED)
        if answer.prediction is None:
            return _reason(_REFUSED, answer.refused)
        return JSONResponse(answer.document())

    return application


async def _read(request: Request) -> bytes | None:
    """Return the body; None if it is too large, without keeping more of it."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BYTES:
            return None
        parts.append(part)
    return b"".join(parts)


def _answer(predictor: WarmPredictor, body: bytes, name: str) -> PictureAnswer:
    """Answer about a picture that is in memory only."""
    descriptor = os.memfd_create("picture", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(body)
        file.flush()
        (answer,) = predictor.answer([(Path(f"/proc/self/fd/{descriptor}"), name)])
    return answer


def _reason(status: int, reason: str) -> JSONResponse:
    return JSONResponse({"reason": printable(reason)}, status)
