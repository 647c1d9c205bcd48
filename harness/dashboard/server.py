"""The server: one page, its parts, and events that bring what has changed. It only reads."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from latlab.harness.dashboard.access import COOKIE, SESSION_S, Access
from latlab.harness.dashboard.hub import LOOK_S, VIEWS, Hub
from latlab.harness.errors import BadInputError

__all__ = ["application", "open_socket", "serve", "url_of"]

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
MOST_LOOKING = 64
"""Pages that may be open at the same time."""
MOST_FORM = 4096
"""Bytes of the form of a login."""
WRONG_S = 1.0
"""Seconds that a wrong token costs; one at a time is answered."""
MOST_PARAMS, MOST_VALUE = 8, 2000
FILES = {
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/views.js": ("views.js", "text/javascript"),
    "/charts.js": ("charts.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_FOLDER = Path(__file__).parent

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class _Guarded:
    """An ASGI application behind the rules of `access`, with `HEADERS` on every answer."""

    def __init__(self, inner: Starlette, access: Access) -> None:
        self._inner, self._access = inner, access

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        request = Request(scope)
        headers = {name.lower(): value for name, value in request.headers.items()}
        twice = len(request.headers.getlist("host")) > 1
        refusal = self._access.refusal(scope["method"], scope["path"], headers, request.cookies.get(COOKIE))
        answer: Response | None = None
        if twice:
            answer = PlainTextResponse("two hosts are named\n", 400)
        elif refusal is not None and refusal.status == 401 and scope["path"] == "/":
            answer = RedirectResponse("/login", 303)
        elif refusal is not None:
            answer = PlainTextResponse(f"{refusal.reason}\n", refusal.status)
        await (answer or self._inner)(scope, receive, send_with_headers)


def application(hub: Hub, access: Access) -> Callable[[Message, Receive, Send], Awaitable[None]]:
    """Return the ASGI application that shows the views of `hub` to those whom `access` lets in."""
    looking = 0
    wrong = asyncio.Lock()

    async def file(request: Request) -> Response:
        name, kind = FILES[request.url.path]
        return Response((_FOLDER / name).read_bytes(), media_type=kind)

    async def live(request: Request) -> Response:
        nonlocal looking
        name = request.query_params.get("view", "")
        params = {key: value for key, value in request.query_params.items() if key != "view"}
        if name not in VIEWS:
            return PlainTextResponse(f"there is no view of that name; there are {', '.join(VIEWS)}\n", 404)
        if len(params) > MOST_PARAMS or any(len(value) > MOST_VALUE for value in params.values()):
            return PlainTextResponse("the question is too long\n", 400)
        if request.query_params.get("once"):
            text = await _beside(hub.view, name, {k: v for k, v in params.items() if k != "once"})
            return Response(text, media_type="application/json")
        if looking >= MOST_LOOKING:
            return PlainTextResponse("too many pages are open\n", 503)
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")

        async def events() -> AsyncIterator[str]:
            nonlocal looking
            looking += 1
            try:
                sent = ""
                while True:
                    text = await _beside(hub.view, name, params)
                    if text != sent:
                        sent = text
                        yield f"event: view\ndata: {text}\n\n"
                    yield f"event: pulse\ndata: {json.dumps(hub.pulse())}\n\n"
                    await asyncio.sleep(LOOK_S)
            finally:
                looking -= 1

        return StreamingResponse(events(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    async def metrics(_: Request) -> Response:
        text = await _beside(hub.metrics)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def login(request: Request) -> Response:
        page = (_FOLDER / "login.html").read_text(encoding="utf-8")
        if access.token is None:
            return RedirectResponse("/", 303)
        if request.method != "POST":
            return Response(page, media_type="text/html")
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MOST_FORM:
                return PlainTextResponse("the form is too long\n", 413)
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=4)
        value = access.log_in(fields.get("token", [""])[0].strip())
        if value is None:
            async with wrong:
                await asyncio.sleep(WRONG_S)
            return Response(page.replace("<p hidden", "<p"), 403, media_type="text/html")
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            COOKIE,
            value,
            max_age=int(SESSION_S),
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer

    routes = [Route(path, file) for path in FILES]
    routes += [Route("/live", live), Route("/metrics", metrics), Route("/login", login, methods=["GET", "POST"])]
    return _Guarded(Starlette(routes=routes), access)


async def _beside(function: Callable[..., str], *arguments: object) -> str:
    """Return what a function returns that may take long, from a daemon thread: nobody waits for it at the end."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[str] = loop.create_future()

    def settle(value: str | None, error: Exception | None) -> None:
        if not future.done():  # the page may be gone
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(value or "")

    def work() -> None:
        value: str | None = None
        error: Exception | None = None
        try:
            value = function(*arguments)
        except Exception as found:
            error = found
        with suppress(RuntimeError):  # the server has ended
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=work, name="view", daemon=True).start()
    return await future


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the command line has some, which end every command alike."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def open_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises `BadInputError` if that is not possible."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise BadInputError(
            f"cannot listen at {host}, port {port}: {reason}", "Choose another with --port (0: any free one)."
        ) from error


def url_of(listening: socket.socket, host: str) -> str:
    """Return where a browser on this machine finds the page."""
    port = listening.getsockname()[1]
    shown = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/"


def serve(hub: Hub, access: Access, listening: socket.socket) -> None:
    """Answer requests until the process is interrupted."""
    config = uvicorn.Config(
        partial(_call, application(hub, access)),
        http="h11",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_level="critical",
        access_log=False,
        server_header=False,
        limit_concurrency=4 * MOST_LOOKING,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=1,
        proxy_headers=False,
    )
    _Server(config).run(sockets=[listening])


async def _call(app: Any, scope: Message, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)
