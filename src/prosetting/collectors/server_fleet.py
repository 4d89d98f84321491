"""Requests over several servers: to the one with the least to do, and again elsewhere when one dies.

A server gets work once it has shown that it lives (`GET /health`, or `/models` where there is none), and again after
each failure of its own. One that nobody listens at any more has a moment to finish what it has; then, and when a
server gives no sign of life for long, its requests go to the others. However often one was asked, one reply counts.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from prosetting.errors import ProSettingError, SolverError, TeacherReplyError, TeacherUnavailable
from prosetting.teachers.endpoint import Endpoint
from prosetting.teachers.http_client import EndpointClient
from prosetting.teachers.http_failures import NothingThere, PassingFailure, proxy_hint

REQUESTS_PER_SERVER = 64
ORDERED_TOGETHER = 256
"""Requests that are put in order, longest first. A short one waits for so many others at most."""
WATCH_S = 2.0  # between looks at a server that works
RETURN_S = 0.5  # between looks at one that does not
LIST_S = 1.0  # between looks at where the servers are
PROBE_S = 10.0
DRAIN_S = 10.0  # for a server that listens no more, to finish what it has
SILENT_S = 300.0  # a server that is only busy answers within this
_log = logging.getLogger("prosetting")

Alive = Literal["yes", "refuses", "silent"]


class Servers(Protocol):
    """Where the servers of one checkpoint are, and what makes them serve it."""

    advice: str
    """What the user can do about servers that fail."""
    patience_s: float
    """How long there may be no server at all."""

    def open(self, ended: threading.Event) -> None:
        """Return once they serve the checkpoint, or when `ended` is set. Raises SolverError when they will not."""
        ...

    def endpoints(self) -> Sequence[Endpoint]:
        """Those of now: asked again and again, so that one that was added or replaced is used. Does not block.
        Raises SolverError when they are lost for good."""
        ...

    def gone(self, endpoint: Endpoint) -> None:
        """One that has answered does so no longer, and its requests are asked elsewhere. Does not block."""
        ...

    def close(self) -> None:
        """End what was started here. Safe to call twice."""
        ...


@dataclass(frozen=True, slots=True)
class Load:
    """A request's place in the order of questions, and what it is expected to cost: the attempts it asks for, then
    the length of its prompt in characters, because longer questions tend to have longer answers."""

    place: int
    attempts: int
    prompt_length: int

    @property
    def rank(self) -> tuple[int, int, int]:
        """Lower ranks first: the longest expected of those that are ordered together."""
        return self.place // ORDERED_TOGETHER, -self.attempts, -self.prompt_length


class ServerLost(PassingFailure):
    """A request failed with its server, and there is another one to ask."""


class _Server:
    """One server: what it has to do, and whether it lives."""

    def __init__(self, endpoint: Endpoint, timeout_s: float) -> None:
        self._client = EndpointClient(endpoint, connections=REQUESTS_PER_SERVER, timeout_s=timeout_s)
        # A new connection for each look: a server that ends may go on with those it has.
        self._looking = EndpointClient(endpoint, connections=1, timeout_s=PROBE_S, keep_alive_s=0.0)
        self.endpoint = endpoint
        self.looked_at = False
        self.has_lived = False
        self.lives = False
        self.leaving = False
        self.requests = 0
        self.attempts = 0
        self.attempts_answered = 0
        self.doubt = asyncio.Event()
        self.last_failure = "has not answered yet"
        self._sending: set[asyncio.Task[bytes]] = set()
        self._given_up: set[asyncio.Task[bytes]] = set()

    @property
    def has_room(self) -> bool:
        return self.lives and not self.leaving and self.requests < REQUESTS_PER_SERVER

    async def send(self, body: Mapping[str, Any]) -> bytes:
        sending = asyncio.ensure_future(self._client.send("/chat/completions", body))
        self._sending.add(sending)
        try:
            return await sending
        except asyncio.CancelledError:
            if sending in self._given_up:
                raise PassingFailure("stopped before it had answered") from None
            raise
        finally:
            self._sending.discard(sending)
            self._given_up.discard(sending)

    def give_up_requests(self) -> None:
        """They fail now, and are asked elsewhere."""
        self._given_up |= self._sending
        for sending in self._sending:
            sending.cancel()

    async def look(self) -> Alive:
        root = self.endpoint.base_url.rstrip("/").removesuffix("/v1")
        try:
            try:
                await self._looking.send(f"{root}/health", None)
            except NothingThere:
                await self._looking.send("/models", None)
        except PassingFailure as failure:
            self.last_failure = str(failure)
            return "refuses" if failure.refused else "silent"
        except (TeacherUnavailable, TeacherReplyError):
            pass  # there is somebody; what is wrong the next request will tell
        return "yes"

    async def close(self) -> None:
        await self._client.close()
        await self._looking.close()


@dataclass(order=True)
class _Waiter:
    """A request that waits for a server."""

    rank: tuple[int, int, int]
    number: int
    attempts: int = field(compare=False)
    tried: set[Endpoint] = field(compare=False)
    server: asyncio.Future[_Server] = field(compare=False)


class Fleet:
    """Belongs to one event loop, and starts with the first request."""

    def __init__(self, servers: Servers, *, timeout_s: float) -> None:
        self._source = servers
        self._timeout_s = timeout_s
        self._servers: dict[Endpoint, _Server] = {}
        self._waiting: list[_Waiter] = []
        self._numbers = itertools.count()
        self._tasks: dict[Endpoint | None, asyncio.Task[None]] = {}
        self._lost: SolverError | None = None
        self._begun = False

    @property
    def most_requests(self) -> int:
        """What the servers take at once, those included that are on their way."""
        return REQUESTS_PER_SERVER * max(1, len(self._servers))

    async def send(self, body: Callable[[Endpoint], Mapping[str, Any]], load: Load, tried: set[Endpoint]) -> bytes:
        """One try, at a server that is not in `tried` if there is one; adds it there. Raises what `EndpointClient.send`
        does, and SolverError when there is no server any more."""
        server = await self._server_for(load, tried)
        tried.add(server.endpoint)
        try:
            reply = await server.send(body(server.endpoint))
            server.attempts_answered += load.attempts
            return reply
        except PassingFailure as failure:
            if not failure.outage:
                raise
            server.last_failure = str(failure)
            server.lives = False
            server.doubt.set()
            if any(other.lives for other in self._servers.values()):
                raise ServerLost(str(failure)) from None
            raise
        finally:
            self._release(server, load.attempts)

    @property
    def loads(self) -> dict[str, int]:
        """Attempts that each server was asked for, answered or in hand, by address."""
        servers = list(self._servers.values())  # asked from another thread
        return {each.endpoint.base_url: each.attempts_answered + each.attempts for each in servers}

    async def close(self) -> None:
        """After all its tasks were cancelled."""
        if len(self._servers) > 1:
            _log.info("attempts by server: %s", ", ".join(f"{url} {count}" for url, count in self.loads.items()))
        for server in self._servers.values():
            await server.close()

    async def _server_for(self, load: Load, tried: set[Endpoint]) -> _Server:
        if self._lost:
            raise self._lost
        if None not in self._tasks:
            self._tasks[None] = asyncio.ensure_future(self._keep_list())
        waiter = _Waiter(load.rank, next(self._numbers), load.attempts, tried, asyncio.Future())
        heapq.heappush(self._waiting, waiter)
        self._assign()
        try:
            return await waiter.server
        except asyncio.CancelledError:
            given = waiter.server
            if given.done() and not given.cancelled() and not given.exception():
                self._release(given.result(), load.attempts)
            raise

    def _release(self, server: _Server, attempts: int) -> None:
        server.requests -= 1
        server.attempts -= attempts
        self._assign()

    def _assign(self) -> None:
        """Give the requests that wait to the servers with the least to do; none before all have been looked at once, or
        the first to answer would get them all."""
        self._begun |= bool(self._servers) and all(server.looked_at for server in self._servers.values())
        while self._begun and self._waiting:
            waiter = self._waiting[0]
            if not waiter.server.done():
                free = [server for server in self._servers.values() if server.has_room]
                if not free:
                    return
                server = min(free, key=lambda each: (each.endpoint in waiter.tried, each.attempts))
                server.requests += 1
                server.attempts += waiter.attempts
                waiter.server.set_result(server)
            heapq.heappop(self._waiting)

    async def _keep_list(self) -> None:
        """Follow where the servers are; fail what waits once there has been none for too long."""
        some_at = time.monotonic()
        while self._lost is None:
            try:
                self._take_list(self._source.endpoints())
            except SolverError as error:
                return self._fail(error)
            except (ProSettingError, OSError) as error:  # a port, a process or a log file that cannot be had
                return self._fail(
                    SolverError(f"no Solver's server can be started: {error}", next_step=self._source.advice)
                )
            now = time.monotonic()
            if any(server.lives for server in self._servers.values()):
                some_at = now
            elif now - some_at > self._source.patience_s:
                self._fail(self._none_left())
            await asyncio.sleep(LIST_S)

    def _take_list(self, endpoints: Sequence[Endpoint]) -> None:
        for endpoint in endpoints:
            if endpoint not in self._servers:
                self._servers[endpoint] = _Server(endpoint, self._timeout_s)
                self._tasks[endpoint] = asyncio.ensure_future(self._watch(self._servers[endpoint]))
            self._servers[endpoint].leaving = False
        for endpoint in self._servers.keys() - set(endpoints):
            self._servers[endpoint].leaving = True

    async def _watch(self, server: _Server) -> None:
        answered_at = time.monotonic()
        last: Alive = "yes"
        while self._lost is None:
            server.doubt.clear()
            found, now = await server.look(), time.monotonic()
            server.looked_at = True
            if found == "yes":
                answered_at, server.has_lived = now, True
                if not server.lives and last != "yes":
                    _log.info("the Solver's server at %s answers", server.endpoint.base_url)
                server.lives = not server.doubt.is_set()
            elif found == "refuses" or now - answered_at > SILENT_S:
                if last == "yes":
                    then = "its requests go to the others" if server.has_lived else "it gets work once it answers"
                    _log.warning(
                        "the Solver's server at %s %s; %s", server.endpoint.base_url, server.last_failure, then
                    )
                server.lives = False
                if now - answered_at > DRAIN_S:
                    server.give_up_requests()
                    if server.has_lived:
                        self._source.gone(server.endpoint)
            last = found
            self._assign()
            if server.leaving and not server.requests:
                break
            await _first(server.doubt.wait(), WATCH_S if server.lives else RETURN_S)
        await self._drop(server)

    async def _drop(self, server: _Server) -> None:
        if server.leaving:
            del self._servers[server.endpoint], self._tasks[server.endpoint]
            await server.close()

    def _fail(self, error: SolverError) -> None:
        self._lost = error
        for waiter in self._waiting:
            if not waiter.server.done():
                waiter.server.set_exception(error)
        self._waiting.clear()

    def _none_left(self) -> SolverError:
        hints = {proxy_hint(endpoint) for endpoint in self._servers}
        return SolverError(
            f"no Solver's server has answered for {self._source.patience_s:.0f} s: " + "; ".join(self._in_words()),
            next_step=self._source.advice + "".join(sorted(hints)),
        )

    def _in_words(self) -> Iterator[str]:
        for endpoint, server in self._servers.items():
            yield f"{endpoint.base_url} {server.last_failure}"


async def _first(awaitable: Any, most_s: float) -> None:
    try:
        async with asyncio.timeout(most_s):
            await awaitable
    except TimeoutError:
        pass
