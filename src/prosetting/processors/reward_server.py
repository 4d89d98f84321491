"""The grading cascade over HTTP on loopback, for a trainer that draws attempts of its own (verl).

It runs on the run's event loop, because the cascade's calls and their books are there, and is opened from the thread
that trains. One limit holds for all that ask: the calls in flight of TEACHER_CONCURRENT_WORKERS.

What ends it: an outage of the teacher, a spent budget, a failed canary, and a teacher that leaves most attempts
without a verdict. From then on every request is refused and `failure` holds the error, so that the training ends
with it: to train on without verdicts would be to train on noise.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from prosetting.errors import TrainingError
from prosetting.processors.reward_calculator import RewardCalculator
from prosetting.records import Question, QuestionId, Verdict

HOST = "127.0.0.1"
MAX_REQUEST_BYTES = 16 * 2**20
KEPT_OPEN_S = 3600.0
MOST_UNKNOWN_SHARE, LEAST_TO_TELL = 0.5, 64
"""More than this share of at least so many attempts without a verdict is a teacher that cannot do this job."""

log = logging.getLogger("prosetting")


class RewardServer:
    """Serves verdicts of `rewards` while it is open; `question_of` finds the question that a request names."""

    def __init__(
        self,
        rewards: RewardCalculator,
        question_of: Callable[[QuestionId], Question | None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._rewards = rewards
        self._question_of = question_of
        self._loop = loop

    @contextmanager
    def serving(self, round_: int) -> Iterator[_Open]:
        """Open until the block ends. For a thread other than the event loop's, which must be running."""
        opened = _Open(self._rewards.in_training(round_), self._question_of)
        self._wait_for(opened.start())
        try:
            yield opened
        finally:
            self._wait_for(opened.stop())

    def _wait_for(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()


class _Open:
    """One opened server: POST /verdict {"question_id", "response", "cut_off"} → {"verdict", "decided_by"}."""

    def __init__(
        self, grader: Callable[..., Coroutine[Any, Any, Any]], question_of: Callable[[QuestionId], Question | None]
    ) -> None:
        self.token = secrets.token_urlsafe(32)
        self.port = 0
        self.failure: Exception | None = None
        self._grade = grader
        self._question_of = question_of
        self._counts: Counter[str] = Counter()
        self._in_flight: set[asyncio.Task[Any]] = set()
        application = web.Application(client_max_size=MAX_REQUEST_BYTES)
        application.router.add_post("/verdict", self._answer)
        self._runner = web.AppRunner(application, access_log=None, keepalive_timeout=KEPT_OPEN_S, shutdown_timeout=1.0)

    @property
    def counts(self) -> dict[str, int]:
        """Attempts graded so far, and how many of them had which verdict."""
        return {"attempts": self._counts.total(), **{verdict.value: self._counts[verdict.value] for verdict in Verdict}}

    async def start(self) -> None:
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Returns once nothing is being graded any more: a request goes on when its caller, ended, is gone."""
        await self._runner.cleanup()
        in_flight = list(self._in_flight)
        for task in in_flight:
            task.cancel()
        await asyncio.gather(*in_flight, return_exceptions=True)

    async def _answer(self, request: web.Request) -> web.Response:
        task = asyncio.current_task()
        assert task is not None
        self._in_flight.add(task)
        task.add_done_callback(self._in_flight.discard)
        if not hmac.compare_digest(request.headers.get("Authorization", "").encode(), f"Bearer {self.token}".encode()):
            return _error(401, "the token is missing or wrong")
        if self.failure is not None:
            return _error(503, str(self.failure))
        try:
            body = await request.json()
            question = self._question_of(QuestionId(str(body["question_id"])))
            response, cut_off = str(body["response"]), bool(body["cut_off"])
        except (ValueError, KeyError, TypeError):
            return _error(400, "send question_id, response and cut_off as JSON")
        if question is None:
            return _error(404, f"no question {str(body['question_id'])[:40]!r} is known here")
        try:
            decision = await self._grade(question, response, cut_off=cut_off)
        except Exception as error:
            # The first one is the cause; what else fails is its consequence.
            self.failure = self.failure or error
            return _error(503, str(error))
        self._counts[decision.verdict.value] += 1
        self._look_at_the_unknown_share(decision.diagnosis)
        return web.json_response({"verdict": decision.verdict.value, "decided_by": decision.decided_by})

    def _look_at_the_unknown_share(self, why: str) -> None:
        total, unknown = self._counts.total(), self._counts[Verdict.UNKNOWN.value]
        if total >= LEAST_TO_TELL and unknown > MOST_UNKNOWN_SHARE * total and self.failure is None:
            self.failure = TrainingError(
                f"{unknown} of the first {total} attempts in training have no verdict, the last because: {why[:200]}",
                next_step="look at the model behind TEACHER_BASE_URL, or give the questions references for the rules",
            )


def _error(status: int, what: str) -> web.Response:
    return web.json_response({"error": what}, status=status)
