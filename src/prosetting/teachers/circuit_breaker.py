"""What all calls to one endpoint share: an outage is waited out by one caller, a rate limit by all.

The breakers of purgatory, aiobreaker and pybreaker turn callers away while open, for a fixed time. Here they wait:
an item that is turned away would be an item without a verdict.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from prosetting.errors import TeacherReplyError
from prosetting.teachers.endpoint import Endpoint
from prosetting.teachers.http_failures import PassingFailure, unavailable

OPENS_AFTER = 8  # failing calls in a row
PROBES = 6  # calls that try an endpoint that is down, one after the other
LONGEST_WAIT_S = 60.0  # before a probe
LONGEST_RETRY_AFTER_S = 600.0
_WORTH_TELLING_S = 10.0

T = TypeVar("T")
log = logging.getLogger("prosetting")


def backoff_s(first_s: float, failures: int) -> float:
    """The wait after so many failures: doubles up to LONGEST_WAIT_S, with jitter so that callers spread."""
    return random.uniform(0.5, 1.0) * min(first_s * 2.0 ** min(failures, 16), LONGEST_WAIT_S)


class CircuitBreaker:
    """Around every HTTP call to one endpoint.

    OPENS_AFTER calls in a row that end in an outage (no connection, no answer in time, 5xx) open it. Then one call
    at a time goes out, after growing waits that begin with `first_wait_s`, and all others wait. Any answer closes
    it; PROBES failing ones end in TeacherUnavailable. What Retry-After asks of one caller, all obey.
    """

    def __init__(self, endpoint: Endpoint, first_wait_s: float) -> None:
        self._endpoint = endpoint
        self._first_wait_s = first_wait_s
        self._failed_in_a_row = 0
        self._probing = asyncio.Lock()
        self._not_before = 0.0  # monotonic
        self._spread_s = 0.0

    async def run(self, call: Callable[[], Awaitable[T]]) -> T:
        """The call's result or failure. Raises TeacherUnavailable when the endpoint stays away, or says that it
        will for more than LONGEST_RETRY_AFTER_S."""
        while self._is_open:
            async with self._probing:
                if self._is_open:
                    return await self._probe(call)
        return await self._watched(call)

    @property
    def _is_open(self) -> bool:
        return self._failed_in_a_row >= OPENS_AFTER

    async def _probe(self, call: Callable[[], Awaitable[T]]) -> T:
        failure: PassingFailure | None = None
        for probe in range(PROBES):
            wait_s = backoff_s(self._first_wait_s, probe + 1)
            log.warning(
                "the teacher at %s is away; trial %d of %d in %.0f s",
                self._endpoint.base_url,
                probe + 1,
                PROBES,
                wait_s,
            )
            await asyncio.sleep(wait_s)
            try:
                return await self._watched(call)
            except PassingFailure as found:
                if not found.outage:
                    raise
                failure = found
        failed, self._failed_in_a_row = self._failed_in_a_row, 0
        raise unavailable(
            self._endpoint,
            f"failed {failed} calls in a row, the last {PROBES} with waits between them; it {failure}",
            "check that it runs and that TEACHER_BASE_URL is right, then run the same command again",
        )

    async def _watched(self, call: Callable[[], Awaitable[T]]) -> T:
        await self._hold()
        try:
            result = await call()
        except PassingFailure as failure:
            self._failed_in_a_row = self._failed_in_a_row + 1 if failure.outage else 0
            self._obey(failure)
            raise
        except TeacherReplyError:
            self._failed_in_a_row = 0
            raise
        self._failed_in_a_row = 0
        return result

    async def _hold(self) -> None:
        """Wait until the endpoint wants to be asked again."""
        while (left_s := self._not_before - time.monotonic()) > 0:
            await asyncio.sleep(left_s + random.uniform(0.0, self._spread_s))

    def _obey(self, failure: PassingFailure) -> None:
        asked_s = failure.retry_after_s
        if asked_s > LONGEST_RETRY_AFTER_S:
            raise unavailable(
                self._endpoint,
                f"{failure}, and asks to come back in {asked_s:.0f} s",
                "run the same command again by then; what was graded stays",
            ) from None
        if time.monotonic() + asked_s > self._not_before:
            if asked_s >= _WORTH_TELLING_S:
                log.warning("the teacher at %s asks to wait %.0f s: %s", self._endpoint.base_url, asked_s, failure)
            self._not_before, self._spread_s = time.monotonic() + asked_s, asked_s / 4
