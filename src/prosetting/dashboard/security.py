"""Who may ask the dashboard what. Every request passes `Guard` before any page is made.

A page of another site can make a browser ask 127.0.0.1, and can point its own name there (DNS rebinding). So the Host
must be a name of this machine, an Origin must be the page's own, and what changes something needs the token, which a
session stands for in a cookie that other sites cannot send. Beyond loopback reading needs it as well.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import secrets
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
WRONG_TOKEN_DELAY_S = 0.5
MOST_SESSIONS = 100
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    # Not no-referrer, with which a browser calls its own forms' Origin null.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
OPEN_PATHS = ("/sign-in", "/static/")
"""What can be asked for without a session where reading needs one."""


class Sessions:
    """Who has shown the token. In memory: a restart asks for it again."""

    def __init__(self, token: str, port: int) -> None:
        self._token = token.encode()
        self._known: dict[str, None] = {}
        # Cookies do not know ports: two dashboards on one machine must not overwrite each other's.
        self.cookie = f"prosetting_session_{port}"

    async def open(self, token: str) -> str | None:
        """A new session's name for the right token; None, after a pause, for a wrong one."""
        if not hmac.compare_digest(token.strip().encode(), self._token):
            await asyncio.sleep(WRONG_TOKEN_DELAY_S)
            return None
        name = secrets.token_urlsafe(32)
        self._known[name] = None
        while len(self._known) > MOST_SESSIONS:
            del self._known[next(iter(self._known))]
        return name

    def knows(self, headers: Headers) -> bool:
        return cookie_parser(headers.get("cookie", "")).get(self.cookie, "") in self._known


class Guard:
    """Refuses what must not be answered, and puts the security headers on what is."""

    def __init__(self, app: ASGIApp, *, sessions: Sessions, bound_to: str) -> None:
        self._app = app
        self._sessions = sessions
        self._bound_to = bound_to
        self._reading_needs_token = not is_loopback(bound_to)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        signed_in = self._sessions.knows(headers)
        scope.setdefault("state", {})["signed_in"] = signed_in
        refusal: ASGIApp | None = None
        if why := refused(scope["method"], headers, self._bound_to):
            refusal = PlainTextResponse(f"refused: {why}\n", status_code=403)
        elif self._reading_needs_token and not signed_in and not scope["path"].startswith(OPEN_PATHS):
            refusal = RedirectResponse("/sign-in", status_code=303)
        await (refusal or self._app)(scope, receive, send_with_headers)


def refused(method: str, headers: Headers, bound_to: str) -> str:
    """Why a request is not answered; empty when it is."""
    hosts, origins = headers.getlist("host"), headers.getlist("origin")
    if len(hosts) != 1 or not host_is_ours(hosts[0], bound_to):
        return "this Host is no name of the dashboard"
    if any(urlsplit(origin).netloc.lower() != hosts[0].lower() for origin in origins):
        return "the request comes from another site"
    if not origins and method not in ("GET", "HEAD"):
        return "no Origin: only the dashboard's own pages may ask for this"
    return ""


def host_is_ours(host: str, bound_to: str) -> bool:
    """Any port, so that a tunnel works. Beyond loopback also an address as such, which no name was rebound to."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name in LOOPBACK_NAMES:
        return True
    if is_loopback(bound_to):
        return False
    return _is_address(name) or name in {bound_to.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what is bound to `host`."""
    return host in LOOPBACK_NAMES or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
