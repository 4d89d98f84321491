"""A teacher behind any OpenAI-compatible endpoint.

Every call has an overall deadline, a byte cap and a checked reply, and every failure one of three ends:
another try, TeacherReplyError (this item stays open) or an error that stops the run (TeacherUnavailable,
RunPaused).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from prosetting.core.journal_rows import TeacherCall
from prosetting.errors import ProSettingError, TeacherReplyError, TeacherUnavailable
from prosetting.records import Question, QuestionKind
from prosetting.teachers import prompts, replies
from prosetting.teachers.base import GradeReply, NewQuestion, ShownAttempt
from prosetting.teachers.budget import Budget, Prices, Usage, estimated_tokens
from prosetting.teachers.call_ledger import CallLedger, NoLedger
from prosetting.teachers.circuit_breaker import CircuitBreaker, backoff_s
from prosetting.teachers.endpoint import Endpoint
from prosetting.teachers.http_bodies import usage_of
from prosetting.teachers.http_client import EndpointClient
from prosetting.teachers.http_failures import (
    NothingThere,
    PassingFailure,
    RequestRefused,
    UnreadableReply,
    proxy_hint,
    unavailable,
)
from prosetting.teachers.prompts import PROMPT_VERSION, Prompt, Task
from prosetting.teachers.replies import TeacherDeclined

RE_ASKS = 2  # further samples after a reply that is not what was asked for
OUTAGE_AFTER = 8  # items in a row without any success
# Parameters that some servers do not know: left out for the rest of the session once one says so.
_OPTIONAL_PARAMETERS = ("response_format", "seed", "temperature")
_WARM = 0.7  # temperature where variety is wanted: new questions, and asking again
_LONGEST_FAILURE = 200  # characters of a failure that is recorded

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked, before it is known how often: the body's fixed part, and its sampling parameters."""

    task: Task
    fixed: Mapping[str, Any]
    seed: int | None

    @property
    def prompt_characters(self) -> int:
        return sum(len(message["content"]) for message in self.fixed["messages"])

    def body(self, sample: int) -> dict[str, Any]:
        return {**self.fixed, **_sampling(self.seed, sample)}

    def hashes(self, endpoint: Endpoint) -> list[str]:
        """The identity of each sample: contract, task, endpoint, model, messages, sampling parameters, index."""
        text = json.dumps([PROMPT_VERSION, self.task.value, endpoint.name, self.fixed], sort_keys=True)
        shared = hashlib.sha256(text.encode())
        found = []
        for sample in _UNSEEDED if self.seed is None else _samples(self.seed):
            one = shared.copy()
            one.update(sample)
            found.append(one.hexdigest())
        return found


def _sampling(seed: int | None, sample: int) -> dict[str, Any]:
    # The same request at temperature 0 would bring the same reply.
    if seed is None and sample == 0:
        return {"temperature": 0.0}
    return {"temperature": _WARM, "seed": (seed or 0) + sample}


def _samples(seed: int | None) -> list[bytes]:
    """What tells the samples of a request apart."""
    return [json.dumps([sample, _sampling(seed, sample)], sort_keys=True).encode() for sample in range(1 + RE_ASKS)]


_UNSEEDED = _samples(None)


@dataclass(slots=True)
class _Meter:
    """What the HTTP calls of one sample have come to."""

    attempts: int = 0
    usage: Usage = field(default_factory=Usage)
    latency_s: float = 0.0


class HttpTeacher:
    """Implements `Teacher`. One object belongs to one event loop.

    At most `concurrent_workers` items are being asked at a time; an item counts until its reply is on disk.
    `timeout_s` is the deadline of one HTTP call, `max_retries` the further calls after a failure that may pass,
    `retry_delay_s` the first wait between them. The methods of `Teacher` also raise RunPaused, from `budget`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        concurrent_workers: int,
        timeout_s: float,
        max_retries: int,
        retry_delay_s: float,
        ledger: CallLedger | None = None,
        budget: Budget | None = None,
        prices: Prices | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._retry_delay_s = retry_delay_s
        self._ledger = ledger or NoLedger()
        self._budget = budget or Budget()
        self._prices = prices
        self._slots = asyncio.Semaphore(concurrent_workers)
        self._breaker = CircuitBreaker(endpoint, retry_delay_s)
        self._being_asked: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._refused_parameters: set[str] = set()
        self._failed_in_a_row = 0
        self._client = EndpointClient(endpoint, connections=concurrent_workers, timeout_s=timeout_s)
        self._retrying = AsyncRetrying(
            stop=stop_after_attempt(1 + max_retries),
            wait=self._wait_s,
            retry=retry_if_exception_type(PassingFailure),
            reraise=True,
        )

    async def grade(self, question: Question, response: str) -> GradeReply:
        return await self._ask(prompts.grade_prompt(question, response), replies.parse_grade)

    async def analyse(self, question: Question, attempt: ShownAttempt) -> str:
        return await self._ask(prompts.analyse_prompt(question, attempt), replies.parse_analysis)

    async def enhance(
        self, question: Question, attempt: ShownAttempt, analysis: str, kind: QuestionKind
    ) -> NewQuestion:
        """Raises TeacherDeclined where the teacher says that it cannot write such a question."""
        prompt = prompts.enhance_prompt(question, attempt, analysis, kind)
        new = await self._ask(prompt, lambda text: replies.parse_new_question(text, kind))
        if new is None:
            raise TeacherDeclined("the teacher can write no such question")
        return new

    async def solve(self, question_text: str) -> str | None:
        return await self._ask(prompts.solve_prompt(question_text), replies.parse_answer)

    async def close(self) -> None:
        await self._client.close()

    async def probe(self) -> None:
        """Check that the endpoint answers and has the model. Raises TeacherUnavailable.

        An endpoint that has no list of models passes: the first call will tell.
        """
        try:
            names = replies.read_models(await self._retrying(self._client.send, "/models", None))
        except NothingThere:
            return
        except PassingFailure as failure:
            raise self._out_of_reach(str(failure)) from None
        except TeacherReplyError as failure:
            raise self._out_of_reach(f"does not speak the OpenAI API: {failure}") from None
        if names and self._endpoint.model not in names:
            shown = ", ".join(sorted(names)[:5])
            raise unavailable(
                self._endpoint,
                f"has no model {self._endpoint.model!r}; it has {shown}",
                "set TEACHER_MODEL_NAME (TEACHER2_MODEL_NAME for Teacher2) to one of these",
            )

    async def _ask(self, prompt: Prompt, parse: Callable[[str], T]) -> T:
        """The recorded reply, or a bought one. Equal requests wait for each other: the first one buys."""
        request = self._request(prompt)
        hashes = request.hashes(self._endpoint)
        async with self._being_asked.setdefault(hashes[0], asyncio.Lock()):
            for recorded in self._ledger.recall(hashes):
                with contextlib.suppress(TeacherReplyError):
                    return parse(recorded)
            async with self._slots:
                try:
                    value = await self._buy(request, hashes, parse)
                except PassingFailure as failure:
                    if failure.refused:
                        raise self._out_of_reach(str(failure)) from None
                    raise self._failed(str(failure)) from None
                except TeacherReplyError as failure:
                    raise self._failed(str(failure)) from None
        self._failed_in_a_row = 0
        return value

    async def _buy(self, request: _Request, hashes: Sequence[str], parse: Callable[[str], T]) -> T:
        """Samples until a reply parses, at most 1 + RE_ASKS."""
        for sample in range(RE_ASKS):
            try:
                return await self._buy_sample(request, sample, hashes[sample], parse)
            except RequestRefused:
                raise
            except TeacherReplyError:
                await asyncio.sleep(backoff_s(self._retry_delay_s, sample))
        return await self._buy_sample(request, RE_ASKS, hashes[RE_ASKS], parse)

    async def _buy_sample(self, request: _Request, sample: int, request_hash: str, parse: Callable[[str], T]) -> T:
        """One sample, tried again after passing failures. Whatever comes of it is recorded, with its cost."""
        meter = _Meter()

        def record(reply: str | None, failure: str) -> asyncio.Future[None]:
            return self._ledger.record(self._row(request, request_hash, meter, reply, failure))

        try:
            text = replies.read_completion(await self._retrying(self._complete, request, sample, meter)).content
            value = parse(text)
        except asyncio.CancelledError:
            if meter.attempts:
                record(None, "interrupted")
            raise
        except Exception as error:
            if meter.attempts:
                await record(None, error.what if isinstance(error, ProSettingError) else str(error))
            raise
        await record(text, "")
        return value

    def _row(self, request: _Request, request_hash: str, meter: _Meter, reply: str | None, failure: str) -> TeacherCall:
        return TeacherCall(
            request_hash=request_hash,
            task=request.task.value,
            endpoint=self._endpoint.name,
            model=self._endpoint.model,
            reply=reply,
            failure=self._endpoint.scrubbed(failure)[:_LONGEST_FAILURE],
            attempts=meter.attempts,
            prompt_tokens=meter.usage.prompt_tokens,
            completion_tokens=meter.usage.completion_tokens,
            latency_s=meter.latency_s,
            cost=self._cost(meter.usage),
        )

    def _cost(self, usage: Usage) -> float | None:
        return None if self._prices is None else self._prices.cost(usage)

    async def _complete(self, request: _Request, sample: int, meter: _Meter) -> bytes:
        """The body of a completion, asked for without the parameters that the server does not know."""
        body = request.body(sample)
        sent = {name: value for name, value in body.items() if name not in self._refused_parameters}
        try:
            return await self._breaker.run(lambda: self._post(sent, request.prompt_characters, meter))
        except RequestRefused as refusal:
            blamed = {name for name in _OPTIONAL_PARAMETERS if name in sent and refusal.blames(name)}
            if not blamed:
                raise
            self._refused_parameters |= blamed
        return await self._complete(request, sample, meter)

    async def _post(self, body: Mapping[str, Any], prompt_characters: int, meter: _Meter) -> bytes:
        """One paid call: what comes back with 200 is counted, readable or not. Raises RunPaused."""
        async with self._budget.call():
            meter.attempts += 1
            started = time.monotonic()
            usage = Usage()
            try:
                reply = await self._client.send("/chat/completions", body)
                usage = usage_of(reply, prompt_characters)
            except UnreadableReply:
                # How much of it was written by a model, nobody knows.
                usage = Usage(estimated_tokens(prompt_characters), 0)
                raise
            finally:
                meter.latency_s += time.monotonic() - started
                meter.usage += usage
                self._budget.add(usage, self._cost(usage))
        if self._endpoint.is_key_in(reply):
            raise TeacherReplyError("the reply repeats the API key")
        return reply

    def _request(self, prompt: Prompt) -> _Request:
        schema = {"name": f"{prompt.task}_reply", "strict": True, "schema": prompts.REPLY_SCHEMAS[prompt.task]}
        fixed = {
            "model": self._endpoint.model,
            "messages": prompt.messages,
            "response_format": {"type": "json_schema", "json_schema": schema},
        }
        digest = hashlib.sha256(prompt.user.encode()).digest()
        seed = int.from_bytes(digest[:4]) >> 1 if prompt.task is Task.ENHANCE else None
        return _Request(prompt.task, fixed, seed)

    def _wait_s(self, state: RetryCallState) -> float:
        return backoff_s(self._retry_delay_s, state.attempt_number - 1)

    def _failed(self, what: str) -> TeacherReplyError | TeacherUnavailable:
        """The failure of one item, or the outage that it is the last sign of."""
        self._failed_in_a_row += 1
        if self._failed_in_a_row < OUTAGE_AFTER:
            return TeacherReplyError(what)
        return self._out_of_reach(f"gave {self._failed_in_a_row} items in a row no usable reply; the last: {what}")

    def _out_of_reach(self, what: str) -> TeacherUnavailable:
        return unavailable(
            self._endpoint,
            what,
            "check that it runs and that TEACHER_BASE_URL is right, then run the same command again"
            + proxy_hint(self._endpoint),
        )
