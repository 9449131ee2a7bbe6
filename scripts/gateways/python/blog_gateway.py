"""A gateway as blog posts have it: one primary that gets five seconds, 403 and 451 caught, one backup.

    pip install fastapi httpx uvicorn
    PRIMARY_URL=https://provider.example/v1 PRIMARY_API_KEY=… BACKSTOP_URL=http://127.0.0.1:8000/v1 \\
        uvicorn blog_gateway:app --port 4000

It survives a primary that cannot be reached, or that is shut to you. It does not survive one that says 401, 404, 429 or
5xx, or that breaks off within an answer, as `backstop drill` finds (docs/drill.md). GATEWAY_CATCHES=all lets every error
lead to the backup that comes before the first byte of an answer; for what comes later a gateway has to read streams.
"""

import json
import os
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.background import BackgroundTask

PRIMARY_TIMEOUT_S = float(os.environ.get("GATEWAY_TIMEOUT_S", "5"))
# Backstop queues rather than refuses, so it gets more patience than the primary.
BACKUP_TIMEOUT_S = 120
CATCHES = os.environ.get("GATEWAY_CATCHES", "403,451")
BODY_BYTES_MAX = 4 << 20
# Who answered, as Backstop says it.
PASSED_ON = ["content-type", "x-backstop-model"]

app = FastAPI()
client = httpx.AsyncClient()


def provider(name: str, default_url: str, default_model: str) -> dict[str, str]:
    return {
        "url": os.environ.get(f"{name}_URL", default_url) + "/chat/completions",
        "api_key": os.environ.get(f"{name}_API_KEY", "unused"),
        "model": os.environ.get(f"{name}_MODEL", default_model),
    }


PRIMARY = provider("PRIMARY", "http://127.0.0.1:9/v1", "gpt-oss-120b")
BACKSTOP = provider("BACKSTOP", "http://127.0.0.1:8000/v1", "demo")


def is_caught(status: int) -> bool:
    return status >= 400 if CATCHES == "all" else str(status) in CATCHES.split(",")


async def ask(provider: dict[str, str], body: dict[str, Any], timeout_s: float) -> httpx.Response:
    """The head of an answer; its body is still to come."""
    headers = {"authorization": f"Bearer {provider['api_key']}"}
    body = {**body, "model": provider["model"]}
    request = client.build_request("POST", provider["url"], json=body, headers=headers, timeout=timeout_s)
    return await client.send(request, stream=True)


async def passed_on(answer: httpx.Response, is_stream: bool) -> Response:
    headers = {name: answer.headers[name] for name in PASSED_ON if name in answer.headers}
    if is_stream:
        closing = BackgroundTask(answer.aclose)
        return StreamingResponse(answer.aiter_bytes(), answer.status_code, headers, background=closing)
    try:
        return Response(await answer.aread(), answer.status_code, headers)
    finally:
        await answer.aclose()


@app.post("/v1/chat/completions")
async def chat(request: Request) -> Response:
    raw = await request.body()
    try:
        body = json.loads(raw) if len(raw) <= BODY_BYTES_MAX else None
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return JSONResponse({"error": {"message": "expected a JSON object of at most 4 MiB"}}, 400)
    is_stream = body.get("stream") is True
    try:
        answer = await ask(PRIMARY, body, PRIMARY_TIMEOUT_S)
        if not is_caught(answer.status_code):
            return await passed_on(answer, is_stream)
        await answer.aclose()
    except httpx.TransportError:
        pass
    return await passed_on(await ask(BACKSTOP, body, BACKUP_TIMEOUT_S), is_stream)
