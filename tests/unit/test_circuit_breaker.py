"""The breaker on a clock of its own: who calls when, and when it gives up."""

from __future__ import annotations

import asyncio
import itertools
from types import SimpleNamespace

import pytest

from prosetting.errors import TeacherReplyError, TeacherUnavailable
from prosetting.teachers import circuit_breaker
from prosetting.teachers.circuit_breaker import LONGEST_WAIT_S, OPENS_AFTER, PROBES, CircuitBreaker, backoff_s
from prosetting.teachers.endpoint import Endpoint
from prosetting.teachers.http_failures import PassingFailure

ENDPOINT = Endpoint("http://host/v1", "", "judge")
DOWN = PassingFailure("answers 503: busy")


class Clock:
    """Sleeping moves it; nothing else does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr(circuit_breaker, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(circuit_breaker, "asyncio", SimpleNamespace(sleep=self._sleep, Lock=asyncio.Lock))

    async def _sleep(self, seconds: float) -> None:
        until = self.now + seconds
        await asyncio.sleep(0)
        self.now = max(self.now, until)


class Server:
    """Fails as told, then answers; remembers when it was called."""

    def __init__(self, clock: Clock, *failures: Exception) -> None:
        self._clock = clock
        self._failures = list(failures)
        self.called_at: list[float] = []
        self._in_flight = 0
        self.in_flight_at_calls: list[int] = []

    async def __call__(self) -> str:
        self.called_at.append(self._clock.now)
        self._in_flight += 1
        self.in_flight_at_calls.append(self._in_flight)
        await asyncio.sleep(0)
        self._in_flight -= 1
        if self._failures:
            raise self._failures.pop(0)
        return "answer"


async def open_it(breaker: CircuitBreaker, server: Server) -> None:
    for _ in range(OPENS_AFTER):
        with pytest.raises(PassingFailure):
            await breaker.run(server)


def test_open_it_lets_one_call_through_at_a_time_after_growing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    async def main() -> None:
        server = Server(clock, *[DOWN] * (OPENS_AFTER + 3))
        breaker = CircuitBreaker(ENDPOINT, 1.0)
        await open_it(breaker, server)
        assert await asyncio.gather(*(breaker.run(server) for _ in range(20))) == ["answer"] * 20
        probes = slice(OPENS_AFTER, OPENS_AFTER + 4)
        assert server.in_flight_at_calls[probes] == [1] * 4
        waits = [after - before for before, after in itertools.pairwise([1_000.0, *server.called_at[probes]])]
        assert [low <= wait <= 2 * low for low, wait in zip((1.0, 2.0, 4.0, 8.0), waits, strict=True)] == [True] * 4

    asyncio.run(main())


def test_it_gives_up_after_a_bounded_number_of_probes_and_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    async def main() -> None:
        server = Server(clock, *[DOWN] * (OPENS_AFTER + PROBES))
        breaker = CircuitBreaker(ENDPOINT, 1.0)
        await open_it(breaker, server)
        with pytest.raises(TeacherUnavailable, match=rf"failed {OPENS_AFTER + PROBES} calls in a row.*503"):
            await breaker.run(server)
        assert clock.now - 1_000.0 <= 2.0 * 2**PROBES
        assert await breaker.run(server) == "answer"

    asyncio.run(main())


@pytest.mark.parametrize(
    "alive", [PassingFailure("answers 429", outage=False), TeacherReplyError("the reply is not JSON")]
)
def test_any_answer_shows_that_the_server_lives(alive: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    async def main() -> None:
        server = Server(clock, *[*[DOWN] * (OPENS_AFTER - 1), alive] * 3)
        breaker = CircuitBreaker(ENDPOINT, 1.0)
        for _ in range(3 * OPENS_AFTER):
            with pytest.raises((PassingFailure, TeacherReplyError)):
                await breaker.run(server)
        assert clock.now == 1_000.0

    asyncio.run(main())


def test_all_callers_obey_the_largest_retry_after_and_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    async def main() -> None:
        later = [PassingFailure("answers 429", outage=False, retry_after_s=s) for s in (300.0, 20.0)]
        server = Server(clock, *later)
        breaker = CircuitBreaker(ENDPOINT, 1.0)
        await asyncio.gather(breaker.run(server), breaker.run(server), return_exceptions=True)
        assert await asyncio.gather(*(breaker.run(server) for _ in range(8))) == ["answer"] * 8
        assert all(300.0 <= at - 1_000.0 <= 375.0 for at in server.called_at[2:])

    asyncio.run(main())


def test_a_retry_after_beyond_patience_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    async def main() -> None:
        server = Server(clock, PassingFailure("answers 429: tomorrow", outage=False, retry_after_s=86_400.0))
        with pytest.raises(TeacherUnavailable, match=r"429: tomorrow.*86400 s"):
            await CircuitBreaker(ENDPOINT, 1.0).run(server)
        assert clock.now == 1_000.0

    asyncio.run(main())


def test_the_backoff_doubles_up_to_a_limit() -> None:
    assert [backoff_s(1.0, n) <= 2.0**n for n in range(6)] == [True] * 6
    assert LONGEST_WAIT_S / 2 <= backoff_s(1.0, 1_000_000) <= LONGEST_WAIT_S
