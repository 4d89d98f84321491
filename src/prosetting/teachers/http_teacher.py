"""A teacher behind any OpenAI-compatible endpoint.

Every call has an overall deadline, a byte cap and a checked reply, and every failure one of three ends:
another try, TeacherReplyError (this item stays open) or TeacherUnavailable (the run stops). The official
client's own retries are off: it obeys Retry-After without jitter, never ends a slow drip, and takes HTML for
a reply.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import httpx2
from openai import AsyncOpenAI, OpenAIError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from prosetting.errors import TeacherReplyError, TeacherUnavailable
from prosetting.records import Question, QuestionKind
from prosetting.teachers import prompts, replies
from prosetting.teachers.base import FailedAttempt, GradeReply, NewQuestion
from prosetting.teachers.endpoint import Endpoint
from prosetting.teachers.http_failures import (
    NothingThere,
    PassingFailure,
    RequestRefused,
    capped_http_client,
    failure_of,
    unavailable,
)
from prosetting.teachers.prompts import PROMPT_VERSION, Prompt, Task
from prosetting.teachers.replies import TeacherDeclined

RE_ASKS = 2  # further calls after a reply that is not what was asked for
OUTAGE_AFTER = 8  # items in a row without any success
MAX_WAIT_S = 60.0  # between tries, Retry-After included
# Parameters that some servers do not know: left out for the rest of the session once one says so.
_OPTIONAL_PARAMETERS = ("response_format", "seed", "temperature")
_WARM = 0.7  # temperature where variety is wanted: new questions, and asking again

T = TypeVar("T")


class CallLedger(Protocol):
    """Where replies are kept, so that none is bought twice."""

    def recall(self, request_hash: str) -> str | None:
        """The reply recorded for this request."""
        ...

    def record(
        self,
        request_hash: str,
        task: str,
        model: str,
        reply: str,
        attempts: int,
        prompt_tokens: int,
        completion_tokens: int,
        latency_s: float,
    ) -> None:
        """Keep a reply that was usable; `attempts` counts the calls it took."""
        ...


class HttpTeacher:
    """Implements `Teacher`. One object belongs to one event loop.

    At most `concurrent_workers` items are being asked at a time. `timeout_s` is the deadline of one call,
    `max_retries` the further calls after a failure that may pass, `retry_delay_s` the first wait between them.
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
    ) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._retry_delay_s = retry_delay_s
        self._ledger = ledger
        self._slots = asyncio.Semaphore(concurrent_workers)
        self._being_asked: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._refused_parameters: set[str] = set()
        self._failed_in_a_row = 0
        self._client = AsyncOpenAI(
            base_url=endpoint.base_url,
            api_key=endpoint.api_key or "none",
            max_retries=0,
            http_client=capped_http_client(endpoint, concurrent_workers, timeout_s),
        )
        self._retrying = AsyncRetrying(
            stop=stop_after_attempt(1 + max_retries),
            wait=self._wait_s,
            retry=retry_if_exception_type(PassingFailure),
            reraise=True,
        )

    async def grade(self, question: Question, response: str) -> GradeReply:
        return await self._ask(prompts.grade_prompt(question, response), replies.parse_grade)

    async def analyse(self, question: Question, failures: Sequence[FailedAttempt]) -> str:
        return await self._ask(prompts.analyse_prompt(question, failures), replies.parse_analysis)

    async def enhance(
        self, question: Question, failures: Sequence[FailedAttempt], analysis: str, kind: QuestionKind
    ) -> NewQuestion:
        """Raises TeacherDeclined where the teacher says that it cannot write such a question."""
        prompt = prompts.enhance_prompt(question, failures, analysis, kind)
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
            names = replies.read_model_names(await self._retrying(self._send, "/models", None))
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
        body = self._body(prompt)
        request_hash = _hash_of(prompt.task, self._endpoint, body)
        async with self._being_asked.setdefault(request_hash, asyncio.Lock()):
            recorded = self._ledger.recall(request_hash) if self._ledger is not None else None
            if recorded is not None:
                with contextlib.suppress(TeacherReplyError):
                    return parse(recorded)
            async with self._slots:
                try:
                    value = await self._buy(prompt.task, request_hash, body, parse)
                except PassingFailure as failure:
                    if failure.refused:
                        raise self._out_of_reach(str(failure)) from None
                    raise self._failed(str(failure)) from None
                except TeacherReplyError as failure:
                    raise self._failed(str(failure)) from None
        self._failed_in_a_row = 0
        return value

    async def _buy(self, task: Task, request_hash: str, body: Mapping[str, Any], parse: Callable[[str], T]) -> T:
        """Ask until a reply parses, at most 1 + RE_ASKS times, and record that reply."""
        calls, called_at = 0, 0.0

        async def call(body: Mapping[str, Any]) -> bytes:
            nonlocal calls, called_at
            calls, called_at = calls + 1, time.monotonic()
            return await self._complete(body)

        for ask in range(1 + RE_ASKS):
            # The same request at temperature 0 would bring the same reply.
            again = {"temperature": _WARM, "seed": body.get("seed", 0) + ask} if ask else {}
            try:
                completion = replies.read_completion(await self._retrying(call, {**body, **again}))
                value = parse(completion.content)
                break
            except RequestRefused:
                raise
            except TeacherReplyError:
                if ask == RE_ASKS:
                    raise
                await asyncio.sleep(self._backoff_s(ask))
        if self._ledger is not None:
            self._ledger.record(
                request_hash,
                task.value,
                self._endpoint.model,
                completion.content,
                calls,
                completion.prompt_tokens,
                completion.completion_tokens,
                time.monotonic() - called_at,
            )
        return value

    async def _complete(self, body: Mapping[str, Any]) -> bytes:
        sent = {name: value for name, value in body.items() if name not in self._refused_parameters}
        try:
            return await self._send("/chat/completions", sent)
        except RequestRefused as refusal:
            blamed = {name for name in _OPTIONAL_PARAMETERS if name in sent and refusal.blames(name)}
            if not blamed:
                raise
            self._refused_parameters |= blamed
        return await self._complete(body)

    async def _send(self, path: str, body: Mapping[str, Any] | None) -> bytes:
        """One HTTP call: POST with a body, GET without."""
        try:
            async with asyncio.timeout(self._timeout_s):
                if body is None:
                    response = await self._client.get(path, cast_to=httpx2.Response)
                else:
                    response = await self._client.post(path, cast_to=httpx2.Response, body=body)
                return response.content
        except TimeoutError:
            raise PassingFailure(f"gives no whole answer within {self._timeout_s:g} s") from None
        except OpenAIError as error:
            raise failure_of(error, self._endpoint) from None

    def _body(self, prompt: Prompt) -> dict[str, Any]:
        schema = {"name": f"{prompt.task}_reply", "strict": True, "schema": prompts.REPLY_SCHEMAS[prompt.task]}
        body: dict[str, Any] = {
            "model": self._endpoint.model,
            "messages": prompt.messages,
            "temperature": 0.0,
            "response_format": {"type": "json_schema", "json_schema": schema},
        }
        if prompt.task is Task.ENHANCE:
            digest = hashlib.sha256(prompt.user.encode()).digest()
            body |= {"temperature": _WARM, "seed": int.from_bytes(digest[:4]) >> 1}
        return body

    def _wait_s(self, state: RetryCallState) -> float:
        """Seconds before the next try: what Retry-After asks for, and a random part so that callers spread."""
        failure = state.outcome.exception() if state.outcome is not None else None
        asked_s = failure.retry_after_s if isinstance(failure, PassingFailure) else 0.0
        asked_s = min(asked_s, MAX_WAIT_S)
        return asked_s * random.uniform(1.0, 1.25) + self._backoff_s(state.attempt_number - 1)

    def _backoff_s(self, failures: int) -> float:
        return random.uniform(0.5, 1.0) * min(self._retry_delay_s * 2.0 ** min(failures, 16), MAX_WAIT_S)

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
            "check that it runs and that TEACHER_BASE_URL is right, then run the same command again",
        )


def _hash_of(task: Task, endpoint: Endpoint, body: Mapping[str, Any]) -> str:
    """The identity of a request: contract, task, endpoint, model, messages and sampling parameters."""
    identity = endpoint.identity or endpoint.base_url.rstrip("/")
    text = json.dumps([PROMPT_VERSION, task.value, identity, body], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
