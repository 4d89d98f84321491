"""Ctrl+C at a real terminal: once drains, twice stops at once, and the run goes on later from what is committed."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pseudo_terminal import Terminal
from whole_runs import children_of, read

from prosetting.core.journal import Journal
from prosetting.core.stopping import DRAIN_S
from prosetting.errors import EXIT_DONE, EXIT_INTERRUPTED

ONE_ROUND = ("--total-rounds", "1", "--validation-data-file", "", "--teacher-concurrent-workers", "4")
CTRL_C = b"\x03"


def wait_for_a_call(run: Terminal, port: int) -> None:
    """Until the run is connected to its teacher: it is asking something."""
    until = time.monotonic() + 120
    while not any(is_connected_to(line, port) for line in Path("/proc/net/tcp").read_text().splitlines()[1:]):
        run.read()
        assert time.monotonic() < until, run.text[-2000:]
        time.sleep(0.05)


def is_connected_to(line: str, port: int) -> bool:
    _, _, remote, state = line.split()[:4]
    return state == "01" and int(remote.partition(":")[2], 16) == port


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def terminal(demo, workspace: Path, faults: str, port: int = 0) -> Iterator[Terminal]:
    teacher = ("--embedded-teacher-faults", faults, "--embedded-teacher-port", str(port))
    opened = Terminal(demo.command(workspace, *ONE_ROUND, *teacher))
    try:
        yield opened
    finally:
        opened.close()


def totals(workspace: Path):
    with Journal(workspace / "prosetting.db", read_only=True) as journal:
        return journal.teacher_totals()


def wait_for_calls(workspace: Path, at_least: int) -> None:
    until = time.monotonic() + 120
    while totals(workspace).calls < at_least:
        assert time.monotonic() < until
        time.sleep(0.1)


def test_ctrl_c_once_finishes_what_is_in_flight_and_commits_it(demo, tmp_path):
    with terminal(demo, tmp_path, "drip:0.004@1") as run:
        run.wait_for("data_grading")
        wait_for_calls(tmp_path, 4)
        run.press(CTRL_C)
        run.wait_for("what is in flight is finished first")
        assert run.end() == EXIT_INTERRUPTED, run.text[-2000:]
    assert totals(tmp_path).failed == 0, "no call in flight was broken off"
    assert read(tmp_path / "training_state.json")["status"] == "stopped"
    assert children_of(tmp_path) == []
    before = totals(tmp_path).attempts
    assert demo.run(tmp_path, *ONE_ROUND).returncode == EXIT_DONE
    assert totals(tmp_path).attempts == totals(tmp_path).calls > before, "no request was asked twice"


def test_ctrl_c_once_breaks_off_what_does_not_end_in_time(demo, tmp_path):
    port = free_port()
    with terminal(demo, tmp_path, "hang@1", port) as run:
        wait_for_a_call(run, port)
        pressed = time.monotonic()
        run.press(CTRL_C)
        assert run.end() == EXIT_INTERRUPTED, run.text[-2000:]
        assert time.monotonic() - pressed > DRAIN_S / 2
    assert "Traceback" not in run.text
    assert read(tmp_path / "training_state.json")["status"] == "stopped"


def test_ctrl_c_twice_stops_at_once_without_damage(demo, tmp_path):
    port = free_port()
    with terminal(demo, tmp_path, "hang@1", port) as run:
        wait_for_a_call(run, port)
        run.press(CTRL_C)
        run.wait_for("again to stop at once")
        run.press(CTRL_C)
        assert run.end(deadline_s=DRAIN_S * 4) == EXIT_INTERRUPTED, run.text[-2000:]
    assert "Traceback" not in run.text
    assert read(tmp_path / "training_state.json")["status"] == "stopped"
    assert demo.run(tmp_path, *ONE_ROUND).returncode == EXIT_DONE
