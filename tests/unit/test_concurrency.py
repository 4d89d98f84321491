"""One stage behind another, errors of stages side by side, and blocking work in threads."""

from __future__ import annotations

import asyncio
import threading

import pytest

from prosetting.core.concurrency import Frontier, in_thread, side_by_side
from prosetting.core.stopping import StopRequested
from prosetting.errors import SolverError


async def is_past(frontier: Frontier, place: int) -> bool:
    waiting = asyncio.ensure_future(frontier.reached(place))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    past = waiting.done()
    waiting.cancel()
    return past


def test_an_item_is_reached_when_it_and_all_before_it_are_done():
    async def run() -> list[bool]:
        frontier = Frontier()
        frontier.done(1)
        before = [await is_past(frontier, place) for place in (0, 1, 2)]
        frontier.done(0)
        return before + [await is_past(frontier, place) for place in (0, 1, 2)]

    assert asyncio.run(run()) == [False, False, False, True, True, False]


def test_whoever_waits_is_let_on_as_items_are_done():
    async def run() -> list[int]:
        frontier, order = Frontier(), []

        async def follow(place: int) -> None:
            await frontier.reached(place)
            order.append(place)

        following = [asyncio.create_task(follow(place)) for place in (2, 0, 1)]
        for place in (1, 0, 2):
            await asyncio.sleep(0)
            frontier.done(place)
        await asyncio.gather(*following)
        return order

    assert asyncio.run(run()) == [0, 1, 2]


def test_a_closed_frontier_lets_on_to_what_was_done_and_stops_who_waits_for_more():
    async def run() -> None:
        frontier = Frontier()
        frontier.done(0)
        waiting = asyncio.ensure_future(frontier.reached(1))
        await asyncio.sleep(0)
        frontier.close()
        await frontier.reached(0)
        for late in (waiting, frontier.reached(1)):
            with pytest.raises(StopRequested):
                await late

    asyncio.run(run())


def test_a_completed_frontier_holds_nobody_up():
    async def run() -> None:
        frontier = Frontier()
        waiting = asyncio.ensure_future(frontier.reached(7))
        await asyncio.sleep(0)
        frontier.complete()
        await waiting
        await frontier.reached(10**9)
        frontier.close()
        await frontier.reached(3)

    asyncio.run(run())


def test_an_error_of_one_ends_the_others_and_is_raised_as_it_is():
    ended = []

    async def fail() -> None:
        await asyncio.sleep(0)
        raise SolverError("lost", next_step="start again")

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    with pytest.raises(SolverError):
        asyncio.run(side_by_side(fail(), wait()))
    assert ended == [True]


def test_a_wish_to_stop_lets_the_others_end_by_themselves():
    done = []

    async def stop() -> None:
        raise StopRequested

    async def finish() -> None:
        await asyncio.sleep(0.01)
        done.append(True)

    with pytest.raises(StopRequested):
        asyncio.run(side_by_side(stop(), finish()))
    assert done == [True]


def test_the_event_loop_goes_on_while_a_thread_works():
    async def run() -> int:
        may_end = threading.Event()
        working = asyncio.ensure_future(in_thread(lambda: may_end.wait(30) and 7))
        await asyncio.sleep(0)
        may_end.set()
        return await working

    assert asyncio.run(run()) == 7


def test_an_error_in_a_thread_is_raised_as_it_is():
    def fail() -> None:
        raise SolverError("lost", next_step="start again")

    with pytest.raises(SolverError):
        asyncio.run(in_thread(fail))


def test_cancelled_work_in_a_thread_is_told_to_end_and_waited_for():
    told, ended = threading.Event(), []

    def work() -> None:
        assert told.wait(30)
        ended.append(True)

    async def run() -> None:
        working = asyncio.ensure_future(in_thread(work, end=told.set))
        await asyncio.sleep(0.01)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert ended == [True]

    asyncio.run(run())
