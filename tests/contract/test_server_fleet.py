"""Several servers behind one Solver: who gets what, and what becomes of it when one dies, comes back or is added."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from test_server_solver import PARAMS, Peer, batch_of, completion, running, settings_for

from prosetting.collectors import server_fleet
from prosetting.collectors.given_servers import GivenServers
from prosetting.collectors.replay_server import MODEL
from prosetting.collectors.server_fleet import Load
from prosetting.collectors.server_solver import ServerSolver
from prosetting.collectors.solver import Sample, SampleRequest
from prosetting.errors import SolverError
from prosetting.records import QuestionId

PATIENCE_S = 20


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"WATCH_S": 0.1, "RETURN_S": 0.05, "LIST_S": 0.05, "DRAIN_S": 0.3}.items():
        monkeypatch.setattr(server_fleet, name, seconds)


def solver_on(*entries: str, model: str = "mine", patience_s: float = 5.0) -> ServerSolver:
    servers = GivenServers(settings_for(*entries, model=model), "/models/r1", patience_s=patience_s)
    return ServerSolver(servers, retry_delay_s=0.0)


def answers(request: Mapping[str, Any]) -> tuple[int, object]:
    return 200, completion(*["the attempt"] * request.get("n", 1))


class Gate:
    """A server's answer that waits until the test lets it pass."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.asked = threading.Semaphore(0)

    def __call__(self, request: Mapping[str, Any]) -> tuple[int, object]:
        self.asked.release()
        self.open.wait(PATIENCE_S)
        return answers(request)


def questions(count: int) -> list[SampleRequest]:
    return batch_of([f"q{number}" for number in range(count)], 2)


def asked(count: int) -> Counter[tuple[str, int]]:
    """Each attempt at `questions`, once."""
    return Counter((request.question_id, request.attempt) for request in questions(count))


@contextmanager
def in_background(solver: ServerSolver, batch: Iterable[SampleRequest]) -> Iterator[list[Sample]]:
    """Samples as they come in; leaving waits for the last."""
    samples: list[Sample] = []
    thread = threading.Thread(target=lambda: samples.extend(solver.sample(batch, PARAMS)))
    thread.start()
    yield samples
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


@dataclass(frozen=True)
class Replayer:
    process: subprocess.Popen[str]
    url: str


@contextmanager
def replaying(folder: Path, rows: list[dict[str, str]], faults: str, port: int = 0) -> Iterator[Replayer]:
    """`prosetting replay` as a process of its own."""
    file = folder / "recorded.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "prosetting", "replay", str(file), "--fault", faults, "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Replayer(process, f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}/v1")
        finally:
            process.kill()


def wait_for(what: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_server_that_is_slow_gets_less_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_fleet, "REQUESTS_PER_SERVER", 4)
    gate = Gate()

    def opens_the_gate_late(request: Mapping[str, Any]) -> tuple[int, object]:
        if len(fast.requests) == 70:
            gate.open.set()
        return answers(request)

    fast, slow = Peer(opens_the_gate_late), Peer(gate)
    with running(fast.server), running(slow.server), solver_on(fast.url, slow.url) as solver:
        samples = list(solver.sample(questions(80), PARAMS))
    assert Counter((sample.question_id, sample.attempt) for sample in samples) == asked(80)
    assert len(fast.requests) >= 70
    assert len(slow.requests) >= 4


def test_equal_servers_get_equal_loads() -> None:
    gates = [Gate(), Gate()]
    peers = [Peer(gate) for gate in gates]
    with ExitStack() as stack:
        for peer in peers:
            stack.enter_context(running(peer.server))
        solver = stack.enter_context(solver_on(*(peer.url for peer in peers)))
        stack.enter_context(in_background(solver, questions(100)))
        wait_for(lambda: sum(len(peer.requests) for peer in peers) == 100)
        for gate in gates:
            gate.open.set()
    assert [len(peer.requests) for peer in peers] == [50, 50]


def test_the_longest_expected_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_fleet, "REQUESTS_PER_SERVER", 1)
    monkeypatch.setattr(ServerSolver, "most_ahead", property(lambda self: 10))
    gate = Gate()
    peer = Peer(gate)

    def requests() -> Iterator[SampleRequest]:
        yield SampleRequest(QuestionId("first"), 0, "first", 1)
        yield SampleRequest(QuestionId("z"), 0, "z", 1)
        gate.asked.acquire(timeout=PATIENCE_S)  # the first is under way, the others are put in order
        for question, attempts in (("a", 1), ("bb", 1), ("c", 2)):
            for attempt in range(attempts):
                yield SampleRequest(QuestionId(question), attempt, question, attempt)

    with running(peer.server), solver_on(peer.url) as solver, in_background(solver, requests()):
        wait_for(lambda: len(solver._fleet._waiting) == 4)
        gate.open.set()
    assert [request["messages"][-1]["content"] for request in peer.requests] == ["first", "c", "bb", "z", "a"]


def test_the_order_of_questions_holds_beyond_those_that_are_ordered_together() -> None:
    early_and_short, late_and_long = Load(0, 1, 1), Load(server_fleet.ORDERED_TOGETHER, 8, 1000)
    assert early_and_short.rank < late_and_long.rank
    assert Load(1, 8, 10).rank < Load(0, 8, 9).rank < Load(2, 1, 100).rank


def test_a_server_that_is_killed_loses_only_what_it_has_in_flight(tmp_path: Path) -> None:
    batch = questions(20)
    rows = [{"question": request.question_id, "response": f"attempt {request.attempt}"} for request in batch]
    with ExitStack() as stack:
        dying = stack.enter_context(replaying(tmp_path, rows, "hang@1"))
        staying = stack.enter_context(replaying(tmp_path, rows, ""))
        solver = stack.enter_context(solver_on(dying.url, staying.url, model=MODEL))
        samples = stack.enter_context(in_background(solver, batch))
        wait_for(lambda: len(samples) == 20)
        assert sorted(server.requests for server in solver._fleet._servers.values()) == [0, 10]
        dying.process.kill()
    assert Counter((sample.question_id, sample.attempt) for sample in samples) == asked(20)
    assert Counter(sample.response for sample in samples) == {"attempt 0": 20, "attempt 1": 20}


def test_a_server_that_listens_no_more_may_finish_what_it_has_and_then_others_do() -> None:
    gate = Gate()
    ending, staying = Peer(gate), Peer(answers)
    with running(staying.server), solver_on(ending.url, staying.url) as solver:
        thread = threading.Thread(target=ending.server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        with in_background(solver, questions(20)) as samples:
            wait_for(lambda: len(ending.requests) == 10)
            ending.server.shutdown()
            ending.server.socket.close()  # connections stay, nobody new gets one
        thread.join()
        gate.open.set()
    assert Counter((sample.question_id, sample.attempt) for sample in samples) == asked(20)
    assert (len(ending.requests), len(staying.requests)) == (10, 20)


def test_a_server_that_is_replaced_at_its_address_is_used_again(tmp_path: Path) -> None:
    rows = [{"question": each.question_id, "response": f"attempt {each.attempt}"} for each in questions(20)]
    other = Peer(answers)
    with ExitStack() as stack:
        stack.enter_context(running(other.server))
        first = stack.enter_context(replaying(tmp_path, rows, ""))
        solver = stack.enter_context(solver_on(first.url, other.url, model=MODEL))
        list(solver.sample(questions(10), PARAMS))
        first.process.kill()
        first.process.wait()
        assert len(list(solver.sample(questions(10), PARAMS))) == 20
        alone = len(other.requests)
        stack.enter_context(replaying(tmp_path, rows, "", port=int(first.url.split(":")[2].split("/")[0])))
        wait_for(lambda: all(server.lives for server in solver._fleet._servers.values()))
        list(solver.sample(questions(20), PARAMS))
    assert len(other.requests) - alone == 10


def test_a_server_that_is_added_to_the_file_is_used_and_one_taken_away_is_not(tmp_path: Path) -> None:
    peers = [Peer(answers) for _ in range(2)]
    file = tmp_path / "servers.txt"
    file.write_text(f"# of the fleet\n{peers[0].url}\n")
    with running(peers[0].server), running(peers[1].server), solver_on(f"@{file}") as solver:
        list(solver.sample(questions(4), PARAMS))
        assert [len(peer.requests) for peer in peers] == [4, 0]
        file.write_text(f"{peers[1].url}\n")
        wait_for(lambda: [endpoint.base_url for endpoint in solver._fleet._servers] == [peers[1].url])
        list(solver.sample(questions(4), PARAMS))
        assert [len(peer.requests) for peer in peers] == [4, 4]
        file.write_text("")  # a mistake does not cost the servers there are
        assert len(list(solver.sample(questions(4), PARAMS))) == 8


def test_no_server_at_all_is_one_clear_stop_that_names_each() -> None:
    with solver_on("http://127.0.0.1:9/v1", "http://127.0.0.1:10/v1", patience_s=0.2) as solver:
        with pytest.raises(SolverError, match=r"no Solver's server has answered for .*:9/v1 .*:10/v1") as e:
            list(solver.sample(questions(3), PARAMS))
        assert "SOLVER_BASE_URLS" in e.value.next_step


def test_a_request_that_no_server_can_answer_is_given_up_after_five_tries_in_all() -> None:
    peers = [Peer(lambda request: (500, {"error": {"message": "the engine is dead"}})) for _ in range(3)]
    with ExitStack() as stack:
        for peer in peers:
            stack.enter_context(running(peer.server))
        solver = stack.enter_context(solver_on(*(peer.url for peer in peers)))
        with pytest.raises(SolverError, match="no usable reply in 5 tries"):
            list(solver.sample(questions(1), PARAMS))
    assert sum(len(peer.requests) for peer in peers) == 5
    assert all(peer.requests for peer in peers), "each is asked before one is asked again"
