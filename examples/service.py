"""Score images over HTTP: POST /score with a form's file `image`, GET /health.

    python examples/service.py --bundle model.pscr --port 8000
    curl -F image=@cat.png http://127.0.0.1:8000/score

What it answers: 200 with a score; 422 for a file that is no image that can be scored, with its status; 413 for an
upload that is too large, as soon as that is known; 503 with Retry-After where too many requests are under way already.
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request, UploadFile
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pscr_engine import Scorer, Status
from pscr_engine.errors import BusyError

MAX_UPLOAD_BYTES = 20 * 2**20
MAX_PIXELS = 40_000_000
# Uploads and images in memory at once. Who comes later is told to, instead of waiting in a line that only grows.
MAX_REQUESTS = 64
RETRY_AFTER = {"Retry-After": "1"}


def make_app(
    bundle: str | None = None,
    *,
    device: str = "auto",
    max_upload_bytes: int = MAX_UPLOAD_BYTES,
    max_pixels: int = MAX_PIXELS,
    max_requests: int = MAX_REQUESTS,
) -> FastAPI:
    """Make the service. The model is loaded when it starts, and given back when it ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with Scorer.open(bundle, device=device, max_waiting=max_requests) as scorer:
            app.state.scorer = scorer
            yield

    app = FastAPI(title="pscr-engine", lifespan=lifespan)
    app.add_middleware(Limits, max_bytes=max_upload_bytes, max_requests=max_requests)

    @app.post("/score")
    async def score(request: Request, image: Annotated[UploadFile, "an image file"]) -> dict[str, Any]:
        data = await image.read()
        try:
            scored = await request.app.state.scorer.score_async(data, max_pixels=max_pixels)
        except BusyError as error:
            raise HTTPException(503, str(error), RETRY_AFTER) from error
        if not scored.ok:
            code = 413 if scored.status is Status.TOO_LARGE else 422
            raise HTTPException(code, {"status": scored.status, "error": scored.error})
        sizes = {"width": scored.width, "height": scored.height}
        return {"score": scored.score, "score_std": scored.score_std, **sizes}

    @app.get("/health")
    async def health(request: Request) -> dict[str, Any]:
        scorer: Scorer = request.app.state.scorer
        return {"precision": scorer.backend.precision, "device": scorer.backend.device, "waiting": scorer.waiting}

    return app


class Limits:
    """Turns uploads away that are too large, by their header or as they come, and all beyond so many at once.

    That is done before a form is read: FastAPI would have the whole upload on disk first.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, max_requests: int) -> None:
        self.app, self.max_bytes, self.max_requests = app, max_bytes, max_requests
        self.under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        too_large = f"an upload may have {self.max_bytes:,} bytes"
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.max_bytes:
            await JSONResponse({"detail": too_large}, 413)(scope, receive, send)
            return
        if self.under_way >= self.max_requests:
            await JSONResponse({"detail": "too many requests: try again"}, 503, RETRY_AFTER)(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:  # the header said less, or nothing
                raise HTTPException(413, too_large)
            return message

        self.under_way += 1
        try:
            await self.app(scope, counted, send)
        finally:
            self.under_way -= 1


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="Score images over HTTP.")
    parser.add_argument("--bundle", help="as for pscr-engine score; the shipped model by default")
    parser.add_argument("--device", default="auto", help="cpu, cuda:N or auto")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all of this host's")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0 for any that is free")
    parser.add_argument("--max-requests", type=int, default=MAX_REQUESTS, help="uploads at once before 503")
    parser.add_argument("--max-upload-bytes", type=int, default=MAX_UPLOAD_BYTES, help="size of an upload before 413")
    options = parser.parse_args()
    app = make_app(
        options.bundle,
        device=options.device,
        max_requests=options.max_requests,
        max_upload_bytes=options.max_upload_bytes,
    )
    uvicorn.run(app, host=options.host, port=options.port)


if __name__ == "__main__":
    main()
