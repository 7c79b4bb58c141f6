"""Who may see the pages: an ASGI layer in front of all of them, web sockets included."""

import asyncio
import base64
import binascii
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = {"localhost", "127.0.0.1", "::1"}
WRONG_PASSWORD_S = 1.0  # that a wrong password costs


class Guard:
    """Asks for a password (any user name), or for a header that only a reverse proxy sets, or for loopback's name.

    Web pages of other sites are refused: a request's Origin must be the host that it asks, and on loopback that host
    must be loopback (else a foreign name that resolves to 127.0.0.1 would do).
    """

    def __init__(self, app: App, password: str | None, header: str | None) -> None:
        self._app, self._password, self._header = app, password, None if header is None else header.lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what may pass."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        status = self._status(headers)
        if status == 200:
            await self._pass_on(scope, receive, send)
            return
        if status == 401 and "authorization" in headers:
            await asyncio.sleep(WRONG_PASSWORD_S)
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        text = {401: b"A password is needed.", 403: b"Not from here."}[status]
        fields = [(b"content-type", b"text/plain"), (b"www-authenticate", b'Basic realm="emotiond", charset="UTF-8"')]
        await send({"type": "http.response.start", "status": status, "headers": fields[: 2 if status == 401 else 1]})
        await send({"type": "http.response.body", "body": text})

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        left = False

        async def heard() -> MutableMapping[str, Any]:
            nonlocal left
            message = await receive()
            left |= message["type"] == "http.disconnect"
            return message

        try:
            await self._app(scope, heard, send)
        except RuntimeError:
            if not left:  # else Starlette complains that who left before the page was ready got no answer
                raise

    def _status(self, headers: dict[str, str]) -> int:
        host = headers.get("host", "")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host and self._header is None:
            return 403
        if self._header is not None:
            return 200 if headers.get(self._header) else 403
        if self._password is not None:
            return 200 if hmac.compare_digest(_given(headers).encode(), self._password.encode()) else 401
        return 200 if host.rpartition(":")[0].strip("[]") in LOOPBACK or host.strip("[]") in LOOPBACK else 403


def _given(headers: dict[str, str]) -> str:
    kind, _, encoded = headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        return ""
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
