"""The transport under the official client: fast with many connections, and nothing without an end passes it."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import httpx2
import openai

from prosetting.teachers.endpoint import Endpoint
from prosetting.teachers.http_failures import PassingFailure, UnreadableReply, failure_of

MAX_BODY_BYTES = 4 * 2**20
KEEP_ALIVE_S = 4.0  # just under the 5 s of uvicorn, which vLLM and others sit on: no call on a connection being closed
_OTHER_FILES = 256
# The last three: status lines and charsets come from the wire, and the client trusts them.
_CLIENT_ERRORS = (openai.OpenAIError, aiohttp.ClientError, OSError, ValueError, TypeError, LookupError)


class EndpointClient:
    """The official client on one endpoint, every call with an overall deadline. Belongs to one event loop.

    Its own retries are off: it obeys Retry-After without jitter, never ends a slow drip, and takes HTML for a reply.
    """

    def __init__(
        self, endpoint: Endpoint, *, connections: int, timeout_s: float, keep_alive_s: float = KEEP_ALIVE_S
    ) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._client = openai.AsyncOpenAI(
            base_url=endpoint.base_url,
            api_key=endpoint.api_key or "none",
            max_retries=0,
            http_client=capped_http_client(endpoint, connections, timeout_s, keep_alive_s),
        )
        # It takes these from OPENAI_ORG_ID and OPENAI_PROJECT_ID; the endpoint may be anybody's.
        self._client.organization = self._client.project = None

    async def send(self, path: str, body: Mapping[str, Any] | None) -> bytes:
        """One HTTP call, POST with a body, GET without: the body of a 200. Raises what `failure_of` gives."""
        try:
            async with asyncio.timeout(self._timeout_s):
                if body is None:
                    response = await self._client.get(path, cast_to=httpx2.Response)
                else:
                    response = await self._client.post(path, cast_to=httpx2.Response, body=body)
                return response.content
        except TimeoutError:
            raise PassingFailure(f"gives no whole answer within {self._timeout_s:g} s") from None
        except _CLIENT_ERRORS as error:
            raise failure_of(error, self._endpoint) from None

    async def close(self) -> None:
        await self._client.close()


def capped_http_client(
    endpoint: Endpoint, connections: int, timeout_s: float, keep_alive_s: float = KEEP_ALIVE_S
) -> httpx2.AsyncClient:
    """The client's transport: bodies end at MAX_BODY_BYTES, a redirect is an answer like any other, and the
    environment's proxies are taken only where the endpoint says so, for this machine never.

    aiohttp's, because httpx's own pool walks through all its connections for each request.
    """
    _allow_open_files(connections + _OTHER_FILES)
    limits = httpx2.Limits(max_connections=connections, keepalive_expiry=keep_alive_s)
    return openai.DefaultAioHttpClient(
        timeout=timeout_s,
        limits=limits,
        headers={"Accept-Encoding": "identity"},
        event_hooks={"response": [_cap_body]},
        follow_redirects=False,  # a request carries the key
        trust_env=endpoint.use_env_proxies and not endpoint.is_loopback,
        verify=httpx2.create_ssl_context(),  # SSL_CERT_FILE counts with and without proxies
    )


def _allow_open_files(count: int) -> None:
    """A soft limit of 1024 files is usual, and one connection is one file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _cap_body(response: httpx2.Response) -> None:
    # A small compressed body can unfold to any size.
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnreadableReply("the reply is compressed although none was asked for")
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    response.stream = _CappedStream(response.stream)


class _CappedStream(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MAX_BODY_BYTES
        async for chunk in self._stream:
            left -= len(chunk)
            if left < 0:
                raise UnreadableReply(f"the reply is longer than {MAX_BODY_BYTES} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
