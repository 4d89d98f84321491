"""The Solver behind OpenAI-compatible servers (vLLM, SGLang, `transformers serve`): attempts over HTTP.

Attempts at one prompt are asked in one request with `n`; where a server gives fewer, the rest follows one by one.
Which server gets a request is `server_fleet`'s; where the servers are, and that they hold the checkpoint, is said by
`given_servers` (addresses of the user's) or `vllm_servers` (started here).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from typing import Self

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from prosetting.collectors.server_fleet import Fleet, Load, ServerLost, Servers
from prosetting.collectors.server_requests import Choice, read_choices, request_body
from prosetting.collectors.solver import Sample, SampleRequest, SamplingParams, Solver
from prosetting.errors import SolverError, TeacherReplyError, TeacherUnavailable
from prosetting.teachers.endpoint import Endpoint
from prosetting.teachers.http_failures import PassingFailure, RequestRefused

TIMEOUT_S = 600.0  # of one request, all of it
MAX_RETRIES = 4
RETRY_DELAY_S = 1.0
MAX_WAIT_S = 60.0  # between tries, Retry-After included
_log = logging.getLogger("prosetting")


class ServerSolver(Solver):
    """Implements `Solver` on the servers that `servers` tells of."""

    def __init__(self, servers: Servers, *, timeout_s: float = TIMEOUT_S, retry_delay_s: float = RETRY_DELAY_S) -> None:
        self._servers = servers
        self._fleet = Fleet(servers, timeout_s=timeout_s)
        self._retry_delay_s = retry_delay_s
        self._one_by_one = False
        self._takes_seeds = True
        self._places = itertools.count()
        self._retrying = AsyncRetrying(
            stop=stop_after_attempt(1 + MAX_RETRIES),
            wait=self._wait_s,
            retry=retry_if_exception_type(PassingFailure),
            reraise=True,
        )
        # A loop in a thread of its own: requests in flight go on while the caller is busy with what it got.
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="server-solver", daemon=True)
        self._thread.start()
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._open = False
        self._closed = threading.Event()

    def sample(self, requests: Iterable[SampleRequest], params: SamplingParams) -> Iterator[Sample]:
        """Draw attempts, each yielded as it is had. Raises SolverError when one of them cannot be had."""
        self._open_servers()
        groups = self._groups(requests)
        in_flight: set[Future[list[Sample]]] = set()
        try:
            while True:
                for group in itertools.islice(groups, max(self.most_ahead - len(in_flight), 0)):
                    in_flight.add(self._start(group, params))
                if not in_flight:
                    return
                done, in_flight = wait(in_flight, return_when=FIRST_COMPLETED)
                failed = {future for future in done if future.cancelled() or future.exception()}
                for future in [*(done - failed), *failed]:
                    yield from future.result()
        except CancelledError:
            raise _closed() from None
        finally:
            for future in in_flight:
                future.cancel()

    @property
    def loads(self) -> dict[str, int]:
        """Attempts that each server of now was asked for, by address."""
        return self._fleet.loads

    @property
    def most_ahead(self) -> int:
        """Requests out or waiting: twice what the servers take, so that there are long ones to choose from."""
        return 2 * self._fleet.most_requests

    def close(self) -> None:
        """Break off what is in flight, close connections, end what was started. Safe to call twice, and from another
        thread."""
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._runner.run(self._end())
        self._runner.close()
        self._servers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _open_servers(self) -> None:
        """The first call waits here, in the caller's thread, until the servers hold the checkpoint."""
        with self._opening:
            if not self._open:
                self._servers.open(self._closed)
                self._open = True
        if self._closed.is_set():
            raise _closed()

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._fleet.close()

    def _groups(self, requests: Iterable[SampleRequest]) -> Iterator[list[SampleRequest]]:
        """What goes out in one request: sampled attempts at one prompt that come one after the other."""
        for (_, greedy), adjacent in itertools.groupby(requests, key=lambda each: (each.prompt, each.seed is None)):
            group = list(adjacent)
            if self._one_by_one or greedy:
                yield from ([request] for request in group)
            else:
                yield group

    def _start(self, group: list[SampleRequest], params: SamplingParams) -> Future[list[Sample]]:
        with self._lock:
            if self._closed.is_set():
                raise _closed()
            return asyncio.run_coroutine_threadsafe(self._draw(group, next(self._places), params), self._loop)

    async def _draw(self, group: list[SampleRequest], place: int, params: SamplingParams) -> list[Sample]:
        """All attempts of a group: of one request, and one by one where that gives fewer."""
        choices = await self._choices(group[0], place, params, 1 if self._one_by_one else len(group))
        self._one_by_one |= len(choices) < len(group)
        for request in group[len(choices) :]:
            choices += await self._choices(request, place, params, 1)
        return [
            Sample(request.question_id, request.attempt, choice.text, choice.finish_reason, choice.tokens)
            for request, choice in zip(group, choices, strict=True)
        ]

    async def _choices(self, request: SampleRequest, place: int, params: SamplingParams, count: int) -> list[Choice]:
        """From one to `count` attempts. Raises SolverError."""
        tried: set[Endpoint] = set()
        try:
            return await self._retrying(self._ask, request, Load(place, count, len(request.prompt)), params, tried)
        except PassingFailure as failure:
            where = ", ".join(sorted(endpoint.base_url for endpoint in tried))
            what = f"the Solver's server at {where} gave no usable reply in {1 + MAX_RETRIES} tries; the last"
            raise SolverError(f"{what}: {failure}", next_step=self._servers.advice) from None
        except TeacherUnavailable as failure:
            raise SolverError(failure.what, next_step=f"{failure.next_step}; {self._servers.advice}") from None

    async def _ask(
        self, request: SampleRequest, load: Load, params: SamplingParams, tried: set[Endpoint]
    ) -> list[Choice]:
        """One request to the server that has most room; again without what it does not take."""
        seeded, count = self._takes_seeds, 1 if self._one_by_one else load.attempts
        try:
            body = await self._fleet.send(
                lambda endpoint: request_body(endpoint.model, request, params, count, seeded=seeded), load, tried
            )
            return read_choices(body, count)
        except RequestRefused as refusal:
            if seeded and request.seed is not None and refusal.blames("seed"):
                if self._takes_seeds:
                    _log.warning("the Solver's server takes no seed: its attempts cannot be drawn again")
                self._takes_seeds = False
            elif count > 1 and refusal.blames("n"):
                self._one_by_one = True
            else:
                raise SolverError(
                    f"the Solver's server at {' or '.join(sorted(each.base_url for each in tried))}: {refusal}",
                    next_step="check SOLVER_MODEL_NAME and SOLVER_MAX_NEW_TOKENS against what it serves",
                ) from None
        except TeacherReplyError as failure:
            raise PassingFailure(str(failure)) from None
        return await self._ask(request, load, params, tried)

    def _wait_s(self, state: RetryCallState) -> float:
        """Seconds before the next try: none where another server can take over at once, else what Retry-After asks
        for, and a random part so that requests spread."""
        failure = state.outcome.exception() if state.outcome is not None else None
        if isinstance(failure, ServerLost):
            return 0.0
        asked_s = failure.retry_after_s if isinstance(failure, PassingFailure) else 0.0
        doubled_s = self._retry_delay_s * 2.0 ** (state.attempt_number - 1)
        return min(asked_s, MAX_WAIT_S) * random.uniform(1.0, 1.25) + random.uniform(0.5, 1.0) * doubled_s


def _closed() -> SolverError:
    return SolverError("the Solver's connections are closed", next_step="run the same command again")
