"""HTTP calls to one endpoint: many at once, and nothing without an end passes."""

from __future__ import annotations

import asyncio
import functools
import json
import resource
from collections.abc import Mapping
from typing import Any

import aiohttp

from prosetting.teachers.endpoint import Endpoint
from prosetting.teachers.http_failures import ErrorReply, PassingFailure, UnreadableReply, failure_of, failure_of_status

MAX_BODY_BYTES = 4 * 2**20
KEEP_ALIVE_S = 4.0  # just under the 5 s of uvicorn, which vLLM and others sit on: no call on a connection being closed
_OTHER_FILES = 256
# The last three: status lines, charsets and addresses come from the wire, and the client trusts them.
_CLIENT_ERRORS = (aiohttp.ClientError, OSError, ValueError, TypeError, LookupError)


class EndpointClient:
    """A pool of at most `connections` to one endpoint, every call with an overall deadline. Belongs to one event loop.

    aiohttp bare, and not under the official client: a call takes that several times as much of the event loop, and of
    what it adds nothing could be left on. Its retries obey Retry-After without jitter, its time limit never ends a
    slow drip, and it takes HTML for a reply.
    """

    def __init__(
        self, endpoint: Endpoint, *, connections: int, timeout_s: float, keep_alive_s: float = KEEP_ALIVE_S
    ) -> None:
        self._endpoint = endpoint
        self._base_url = endpoint.base_url.rstrip("/")
        self._connections = connections
        self._timeout_s = timeout_s
        self._keep_alive_s = keep_alive_s
        # Given to each call: what a session sends by default, it sends to a proxy too.
        self._headers = {
            "Authorization": f"Bearer {endpoint.api_key or 'none'}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # a small compressed body can unfold to any size
            "Content-Type": "application/json",
        }

    @functools.cached_property
    def _session(self) -> aiohttp.ClientSession:
        """Made by the first call, since it belongs to the loop that makes it.

        No cookies, and nothing of the environment: `trust_env` would send what a netrc file says in place of the key.
        """
        _allow_open_files(self._connections + _OTHER_FILES)
        keep = {"keepalive_timeout": self._keep_alive_s} if self._keep_alive_s else {"force_close": True}
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, **keep),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            proxy=self._endpoint.proxy,
        )

    async def send(self, path: str, body: Mapping[str, Any] | None) -> bytes:
        """One HTTP call, POST with a body, GET without: the body of a 200. Raises what `failure_of` and
        `failure_of_status` give, UnreadableReply for a body that is compressed or longer than MAX_BODY_BYTES."""
        method, data = ("GET", None) if body is None else ("POST", json.dumps(body).encode())
        try:
            async with asyncio.timeout(self._timeout_s):
                call = self._session.request(
                    method,
                    self._base_url + path,
                    data=data,
                    headers=self._headers,
                    allow_redirects=False,  # a request carries the key
                )
                async with call as reply:
                    content = await _capped_body(reply)
                    status, headers = reply.status, reply.headers
        except TimeoutError:
            raise PassingFailure(f"gives no whole answer within {self._timeout_s:g} s") from None
        except _CLIENT_ERRORS as error:
            raise failure_of(error) from None
        if not 200 <= status < 300:
            raise failure_of_status(ErrorReply(status, headers, content), self._endpoint)
        return content

    async def close(self) -> None:
        await self._session.close()


async def _capped_body(reply: aiohttp.ClientResponse) -> bytes:
    if reply.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnreadableReply("the reply is compressed although none was asked for")
    body = bytearray()
    async for chunk in reply.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise UnreadableReply(f"the reply is longer than {MAX_BODY_BYTES} bytes")
    return bytes(body)


def _allow_open_files(count: int) -> None:
    """A soft limit of 1024 files is usual, and one connection is one file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
