"""Lines of progress: pace without waiting, an end that is estimated with it, no animation off a terminal."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from prosetting.core import pausing, progress
from prosetting.core.progress import Progress, open_stages, shown_rate, shown_time


class Clock:
    """A clock that goes on when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    found = Clock()
    monkeypatch.setattr(pausing, "clock", found)
    yield found
    progress.close_all()


def test_a_stage_that_waits_for_another_counts_its_waiting_for_its_end_and_not_for_its_pace(clock: Clock) -> None:
    stage = Progress("grading", 100)
    for _ in range(10):
        clock.now += 0.9  # nothing to grade yet
        with stage.busy():
            clock.now += 0.1
        stage.advance(1)
    rate, left_s = stage.pace()
    assert rate == pytest.approx(10, rel=0.02)
    assert left_s == pytest.approx(90, rel=0.15)
    assert stage.waits


def test_work_side_by_side_is_counted_once(clock: Clock) -> None:
    stage = Progress("grading", 100)
    with stage.busy(), stage.busy():
        stage.advance(1)
        clock.now += 2.0
        stage.advance(10)
    assert stage.pace()[0] == pytest.approx(5)


def test_the_pace_is_that_of_the_last_minute(clock: Clock) -> None:
    stage = Progress("sampling", 10_000)
    with stage.busy():
        for rate in (1, 20):
            for _ in range(200):
                clock.now += 1.0
                stage.advance(rate)
        assert stage.pace()[0] == pytest.approx(20)


def test_what_was_done_before_is_no_part_of_the_pace(clock: Clock) -> None:
    stage = Progress("sampling", 100)
    stage.skip(90)
    with stage.busy():
        clock.now += 500.0  # a model is loaded
        stage.advance(1)
        clock.now += 4.0
        stage.advance(4)
    assert (stage.done, stage.total) == (5, 10)
    assert stage.pace() == (pytest.approx(1), pytest.approx(5))


def test_a_log_gets_a_line_now_and_then_and_the_last_one(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "prosetting")
    stage = Progress("round 1 · grading (train)", 8)
    for _ in range(8):
        with stage.busy():
            clock.now += 2.0
        stage.count({"correct": 3, "incorrect": 5})
        stage.advance(1)
    assert [record.message for record in caplog.records] == [
        "round 1 · grading (train) 3/8 · 30.0/min · 10 s left · 9 correct, 15 incorrect",
        "round 1 · grading (train) 6/8 · 30.0/min · 4 s left · 18 correct, 30 incorrect",
        "round 1 · grading (train) 8/8 · 30.0/min · 24 correct, 40 incorrect",
    ]
    assert open_stages() == []


def test_a_stage_is_open_until_it_is_done_or_closed() -> None:
    with Progress("asked", 10) as stage:
        stage.advance(1)
        assert open_stages() == [stage]
    assert open_stages() == []


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (shown_rate(120.4), "120/s"),
        (shown_rate(2.34), "2.3/s"),
        (shown_rate(0.05), "3.0/min"),
        (shown_time(9.6), "10 s"),
        (shown_time(75), "1 min 15 s"),
        (shown_time(7322), "2 h 02 min"),
    ],
)
def test_figures_read_well(shown: str, text: str) -> None:
    assert shown == text


def test_a_pause_is_in_no_clock() -> None:
    with pausing.pausable():
        before = pausing.clock()
        pausing.wish()
        stands = pausing.clock()
        assert pausing.clock() == pytest.approx(stands, abs=1e-3)
        pausing.go_on()
        assert pausing.clock() >= before


LIVE = """
import logging, time
from prosetting.core.live_lines import can_be_live, live_handler
from prosetting.core.progress import Progress
log = logging.getLogger("prosetting")
log.setLevel(logging.INFO)
print("can be live:", can_be_live())
with live_handler() as handler:
    log.addHandler(handler)
    stages = [Progress("sampling [bold]x[/]", 4), Progress("grading", 4)]
    for stage in stages:
        with stage.busy():
            stage.advance(1)
    stages[1].count({"correct": 2})
    log.info("a line with [red]markup[/] of " + "w" * 200)
    time.sleep(0.6)
    for stage in stages:
        stage.close()
"""


def at_a_terminal(**environment: str) -> str:
    import pty

    master, slave = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", **environment}
    run = subprocess.Popen([sys.executable, "-c", LIVE], stdout=slave, stderr=slave, stdin=slave, env=env)
    os.close(slave)
    text = b""
    try:
        while chunk := os.read(master, 65536):
            text += chunk
    except OSError:
        pass
    assert run.wait(20) == 0, text
    os.close(master)
    return text.decode()


def test_at_a_terminal_each_stage_in_progress_has_a_live_line_and_log_lines_stay_whole() -> None:
    text = at_a_terminal()
    assert "can be live: True" in text
    assert "sampling [bold]x[/]" in text
    assert "grading" in text
    assert "2 correct" in text
    assert "a line with [red]markup[/] of " + "w" * 200 in text
    assert "\x1b[?25h" in text, "the cursor is shown again"


def test_no_color_and_a_dumb_terminal_are_obeyed() -> None:
    assert "\x1b[38;" in at_a_terminal()
    assert "\x1b[38;" not in at_a_terminal(NO_COLOR="1")
    assert "can be live: False" in at_a_terminal(TERM="dumb")


def test_off_a_terminal_nothing_is_animated() -> None:
    done = subprocess.run([sys.executable, "-c", LIVE], capture_output=True, text=True, check=True)
    assert "can be live: False" in done.stdout
