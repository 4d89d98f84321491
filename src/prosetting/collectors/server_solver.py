"""The Solver behind OpenAI-compatible servers (vLLM, SGLang, `transformers serve`): attempts over HTTP.

Attempts at one prompt are asked in one request with `n`; where a server gives fewer, the rest follows one by one.
Left out: a fleet. Servers are taken in turn, a request that failed goes to the next one, and nothing starts, ends or
loads them; after training they must serve the new checkpoint.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import random
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass
from typing import Any, Literal, Self

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from prosetting.collectors.solver import Sample, SampleRequest, SamplingParams
from prosetting.config import Settings
from prosetting.errors import SolverError, TeacherReplyError, TeacherUnavailable
from prosetting.teachers.endpoint import SOLVER, Endpoint
from prosetting.teachers.http_client import EndpointClient
from prosetting.teachers.http_failures import (
    NothingThere,
    PassingFailure,
    RequestRefused,
    proxy_hint,
)
from prosetting.teachers.replies import read_model_names

REQUESTS_PER_SERVER = 64
TIMEOUT_S = 600.0  # of one request, all of it
PROBE_S = 30.0
MAX_RETRIES = 4
RETRY_DELAY_S = 1.0
MAX_WAIT_S = 60.0  # between tries, Retry-After included
_SEEDS = 2**31  # some servers keep a seed in 32 bits
_CHECK = "check that it runs and that SOLVER_BASE_URLS is right, then run the same command again: it goes on from there"
_log = logging.getLogger("prosetting")


@dataclass(frozen=True, slots=True)
class Choice:
    """One text of a reply."""

    text: str
    finish_reason: Literal["stop", "length"]
    tokens: int


class _Server(EndpointClient):
    """The connections to one server."""

    def __init__(self, endpoint: Endpoint, timeout_s: float) -> None:
        super().__init__(endpoint, connections=REQUESTS_PER_SERVER, timeout_s=timeout_s)
        self.endpoint = endpoint
        self.title = f"the {endpoint.role.title} at {endpoint.base_url}"


class ServerSolver:
    """Implements `Solver`. The model asked for is SOLVER_MODEL_NAME, else `model_path`, the current checkpoint's.

    With SOLVER_MODEL_NAME the same model answers in every round, whatever was trained: right for rounds that only
    gather data, and otherwise where whoever runs the servers puts the new checkpoint behind that name.
    """

    def __init__(
        self, settings: Settings, model_path: str, *, timeout_s: float = TIMEOUT_S, retry_delay_s: float = RETRY_DELAY_S
    ) -> None:
        self._servers = [_Server(endpoint, timeout_s) for endpoint in _endpoints(settings, model_path)]
        self._retry_delay_s = retry_delay_s
        self._one_by_one = False
        self._takes_seeds = True
        self._asked = 0
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
        self._closed = False

    def sample(self, requests: Iterable[SampleRequest], params: SamplingParams) -> Iterator[Sample]:
        """Draw attempts, each yielded as it is had. Raises SolverError when one of them cannot be had."""
        groups = self._groups(requests)
        in_flight: set[Future[list[Sample]]] = set()
        try:
            while True:
                room = REQUESTS_PER_SERVER * len(self._servers) - len(in_flight)
                for group in itertools.islice(groups, room):
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

    def close(self) -> None:
        """Break off what is in flight and close connections. Safe to call twice, and from another thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._runner.run(self._end())
        self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in self._servers:
            await server.close()

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
            if self._closed:
                raise _closed()
            return asyncio.run_coroutine_threadsafe(self._draw(group, params), self._loop)

    async def _draw(self, group: list[SampleRequest], params: SamplingParams) -> list[Sample]:
        """All attempts of a group: of one request, and one by one where that gives fewer."""
        choices = await self._choices(group[0], params, 1 if self._one_by_one else len(group))
        self._one_by_one |= len(choices) < len(group)
        for request in group[len(choices) :]:
            choices += await self._choices(request, params, 1)
        return [
            Sample(request.question_id, request.attempt, choice.text, choice.finish_reason, choice.tokens)
            for request, choice in zip(group, choices, strict=True)
        ]

    async def _choices(self, request: SampleRequest, params: SamplingParams, count: int) -> list[Choice]:
        """From one to `count` attempts. Raises SolverError."""
        try:
            return await self._retrying(self._ask, request, params, count)
        except PassingFailure as failure:
            where = ", ".join(server.endpoint.base_url for server in self._servers)
            what = f"the Solver's server at {where} gave no usable reply in {1 + MAX_RETRIES} tries; the last"
            hint = proxy_hint(self._servers[0].endpoint)
            raise SolverError(f"{what}: {failure}", next_step=_CHECK + hint) from None
        except TeacherUnavailable as failure:
            raise SolverError(failure.what, next_step=failure.next_step) from None

    async def _ask(self, request: SampleRequest, params: SamplingParams, count: int) -> list[Choice]:
        """One request to the next server; again without what it does not take."""
        server = self._servers[self._asked % len(self._servers)]
        self._asked += 1
        body = self._body(server.endpoint.model, request, params, count)
        try:
            return read_choices(await server.send("/chat/completions", body), count)
        except RequestRefused as refusal:
            if "seed" in body and refusal.blames("seed"):
                if self._takes_seeds:
                    _log.warning("the Solver's server takes no seed: its attempts cannot be drawn again")
                self._takes_seeds = False
            elif "n" in body and refusal.blames("n"):
                self._one_by_one, count = True, 1
            else:
                raise SolverError(
                    f"{server.title}: {refusal}",
                    next_step="check SOLVER_MODEL_NAME and SOLVER_MAX_NEW_TOKENS against what it serves",
                ) from None
        except TeacherReplyError as failure:
            raise PassingFailure(str(failure)) from None
        return await self._ask(request, params, count)

    def _body(self, model: str, request: SampleRequest, params: SamplingParams, count: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": request.prompt}],
            "max_tokens": params.max_new_tokens,
            "temperature": 0.0 if request.seed is None else params.temperature,
        }
        if request.seed is not None and params.top_p < 1:
            body["top_p"] = params.top_p
        if request.seed is not None and self._takes_seeds:
            body["seed"] = request.seed % _SEEDS
        return body | ({"n": count} if count > 1 else {})

    def _wait_s(self, state: RetryCallState) -> float:
        """Seconds before the next try: what Retry-After asks for, and a random part so that requests spread."""
        failure = state.outcome.exception() if state.outcome is not None else None
        asked_s = failure.retry_after_s if isinstance(failure, PassingFailure) else 0.0
        doubled_s = self._retry_delay_s * 2.0 ** (state.attempt_number - 1)
        return min(asked_s, MAX_WAIT_S) * random.uniform(1.0, 1.25) + random.uniform(0.5, 1.0) * doubled_s


def _closed() -> SolverError:
    return SolverError("the Solver's connections are closed", next_step="run the same command again")


def check_servers(settings: Settings) -> None:
    """Check that every server of SOLVER_BASE_URLS answers and has the model. Raises SolverError, or ConfigError for
    an address that is none. A server without a list of models passes: the first request will tell."""
    with asyncio.Runner() as runner:
        for endpoint in _endpoints(settings, settings.solver_model_path):
            runner.run(_probe(_Server(endpoint, PROBE_S)))


async def _probe(server: _Server) -> None:
    try:
        names = read_model_names(await server.send("/models", None))
    except NothingThere:
        return
    except TeacherUnavailable as failure:
        raise SolverError(failure.what, next_step=failure.next_step) from None
    except PassingFailure as failure:
        raise SolverError(f"{server.title} {failure}", next_step=_CHECK + proxy_hint(server.endpoint)) from None
    except TeacherReplyError as failure:
        raise SolverError(f"{server.title} does not speak the OpenAI API: {failure}", next_step=_CHECK) from None
    finally:
        await server.close()
    model = server.endpoint.model
    if names and model not in names:
        what = f"{server.title} has no model {model!r}; it has {', '.join(sorted(names)[:5])}"
        raise SolverError(what, next_step="set SOLVER_MODEL_NAME to one of these")


def _endpoints(settings: Settings, model_path: str) -> list[Endpoint]:
    key, model = settings.solver_api_key.get_secret_value(), settings.solver_model_name or model_path
    proxies = settings.http_use_env_proxies
    return [Endpoint(url, key, model, role=SOLVER, use_env_proxies=proxies) for url in settings.solver_base_urls]


def read_choices(body: bytes, count: int) -> list[Choice]:
    """The choices of a 200 answer, from one to `count`, by index. Raises TeacherReplyError unless all are whole.

    `tokens` is what the server counted; with several choices it gives their sum only, which is then shared out by
    length. 0 where it counts none.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise TeacherReplyError("the body is not JSON") from None
    rows = document.get("choices") if isinstance(document, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise TeacherReplyError("the body is not a chat completion")
    if not 1 <= len(rows) <= count:
        raise TeacherReplyError(f"the reply has {len(rows)} choices, {count} were asked for")
    places = [row.get("index", place) for place, row in enumerate(rows)]
    if sorted(map(str, places)) != sorted(map(str, range(len(rows)))):
        raise TeacherReplyError("the reply's choices have no proper index")
    texts = [_text(row) for _, row in sorted(zip(places, rows, strict=True), key=lambda pair: int(pair[0]))]
    usage = document.get("usage")
    total = usage.get("completion_tokens") if isinstance(usage, dict) else 0
    lengths = [len(text) + 1 for text, _ in texts]
    whole = total if type(total) is int and 0 <= total < _SEEDS else 0
    return [
        Choice(text, reason, whole * length // sum(lengths))
        for (text, reason), length in zip(texts, lengths, strict=True)
    ]


def _text(row: Mapping[str, Any]) -> tuple[str, Literal["stop", "length"]]:
    message = row.get("message")
    text = message.get("content") if isinstance(message, dict) else None
    if not isinstance(text, str):
        raise TeacherReplyError("a choice has no text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise TeacherReplyError("a choice is not valid Unicode") from None
    reason = row.get("finish_reason")
    if reason == "stop":
        return text, "stop"
    if reason == "length":
        return text, "length"
    raise TeacherReplyError(f"a choice ended with {str(reason)[:40]!r}, not with stop or length")
