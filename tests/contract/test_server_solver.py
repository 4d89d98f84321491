"""ServerSolver against real peers: the replay server, and servers that do less than they are asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from prosetting.collectors.given_servers import GivenServers, check_servers
from prosetting.collectors.replay_server import MODEL, load_recordings
from prosetting.collectors.server_requests import read_choices
from prosetting.collectors.server_solver import ServerSolver
from prosetting.collectors.solver import Sample, SampleRequest, SamplingParams
from prosetting.config import Settings
from prosetting.core.openai_server import listen
from prosetting.core.server_faults import FaultDraw, parse_faults
from prosetting.errors import ConfigError, SolverError, TeacherReplyError
from prosetting.records import QuestionId

KEY = "sk-solver-secret-77"
PARAMS = SamplingParams(max_new_tokens=64, temperature=0.8, top_p=0.9)


def solver_at(*urls: str, model: str | None = "mine", timeout_s: float = 30.0) -> ServerSolver:
    servers = GivenServers(settings_for(*urls, model=model), "/models/r1", patience_s=5.0)
    return ServerSolver(servers, timeout_s=timeout_s, retry_delay_s=0.0)


def settings_for(*urls: str, model: str | None = "mine", key: str = KEY) -> Settings:
    return Settings(
        solver_model_path="/models/r0",
        solver_base_urls=urls,
        solver_api_key=key,
        solver_model_name=model,
        total_rounds=2,  # and none of them trains
    )


def batch_of(questions: Sequence[str], attempts: int) -> list[SampleRequest]:
    return [
        SampleRequest(QuestionId(question), attempt, f"{question}\nThink.", 2**40 + 100 * place + attempt)
        for place, question in enumerate(questions)
        for attempt in range(attempts)
    ]


@contextmanager
def replaying(tmp_path: Path, attempts: int, faults: str = "") -> Iterator[str]:
    """A replay server that has `q0`…`q4` with so many attempts, "q0 0", "q0 1", …"""
    file = tmp_path / "recorded.jsonl"
    rows = [{"question": f"q{q}", "response": f"q{q} {a}"} for q in range(5) for a in range(attempts)]
    file.write_text("\n".join(map(json.dumps, rows)))
    server = listen(0, MODEL, load_recordings(file).answer, FaultDraw(parse_faults(faults)), any_port="")
    with running(server):
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"


@contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[None]:
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Peer:
    """A server whose answers are worked out from each request: (status, document)."""

    def __init__(
        self, answer: Callable[[Mapping[str, Any]], tuple[int, object]], models: Sequence[str] = (), port: int = 0
    ) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        peer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.reply(200, {"data": [{"id": model} for model in models]})

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                peer.requests.append(request)
                peer.keys.append(self.headers["Authorization"])
                self.reply(*answer(request))

            def reply(self, status: int, document: object) -> None:
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"


def completion(*texts: str, tokens: int = 10, reason: str = "stop") -> dict[str, Any]:
    choices = [
        {"index": index, "message": {"content": text}, "finish_reason": reason} for index, text in enumerate(texts)
    ]
    return {"choices": choices, "usage": {"completion_tokens": tokens}}


def drawn(request: Mapping[str, Any], count: int) -> dict[str, Any]:
    seed = request.get("seed")
    return completion(*(f"{request['messages'][-1]['content'][:2]} {seed} {index}" for index in range(count)))


def sampled(peer: Peer, batch: Sequence[SampleRequest], params: SamplingParams = PARAMS) -> list[Sample]:
    with running(peer.server), solver_at(peer.url) as solver:
        return in_order(solver, batch, params)


def in_order(solver: ServerSolver, batch: Sequence[SampleRequest], params: SamplingParams = PARAMS) -> list[Sample]:
    """The samples in the order of their requests; fails unless each request has one."""
    found = {(sample.question_id, sample.attempt): sample for sample in solver.sample(batch, params)}
    assert len(found) == len(batch)
    return [found[request.question_id, request.attempt] for request in batch]


def refusal(message: str, param: str | None = None) -> tuple[int, object]:
    return 400, {"error": {"message": message, "param": param}}


def test_every_recorded_attempt_is_drawn_once(tmp_path: Path) -> None:
    batch = batch_of([f"q{n}" for n in range(5)], 4)
    with replaying(tmp_path, 4) as url, solver_at(url, model=MODEL) as solver:
        assert in_order(solver, []) == []
        assert [sample.response for sample in in_order(solver, batch)] == [
            f"q{q} {a}" for q in range(5) for a in range(4)
        ]


def test_attempts_of_one_question_that_fall_into_two_batches_are_still_drawn_once_each(tmp_path: Path) -> None:
    batch = batch_of([f"q{n}" for n in range(5)], 3)
    with replaying(tmp_path, 3) as url, solver_at(url, model=MODEL) as solver:
        samples = [*in_order(solver, batch[:4]), *in_order(solver, batch[4:8])]
        samples += in_order(solver, batch[8:])
    assert [sample.response for sample in samples] == [f"q{q} {a}" for q in range(5) for a in range(3)]


@pytest.mark.parametrize(
    "faults", ["429:0@0.4", "500@0.4", "reset@0.4", "truncate@0.4", "html@0.4", "empty@0.4", "duplicate@0.4",
               "wrong_schema@0.4", "wrong_count@0.4", "wrong_count:9@0.4", "huge:6@0.3"]
)  # fmt: skip
def test_a_fault_that_passes_loses_and_doubles_no_attempt(tmp_path: Path, faults: str) -> None:
    batch = batch_of([f"q{n}" for n in range(5)], 4)
    with replaying(tmp_path, 4, faults) as url, solver_at(url, model=MODEL) as solver:
        samples = in_order(solver, batch)
    assert [sample.response for sample in samples] == [f"q{q} {a}" for q in range(5) for a in range(4)]


def test_one_request_asks_all_attempts_of_a_prompt_with_the_sampling_parameters() -> None:
    peer = Peer(lambda request: (200, drawn(request, request["n"])))
    samples = sampled(peer, batch_of(["q0", "q1"], 3))
    assert sorted(peer.requests, key=str) == [
        {
            "model": "mine",
            "messages": [{"role": "user", "content": f"q{place}\nThink."}],
            "max_tokens": 64,
            "temperature": 0.8,
            "top_p": 0.9,
            "seed": 100 * place,
            "n": 3,
        }
        for place in range(2)
    ]
    assert [(sample.question_id, sample.attempt) for sample in samples] == [
        (f"q{q}", a) for q in range(2) for a in range(3)
    ]
    assert peer.keys == [f"Bearer {KEY}"] * 2


@pytest.mark.parametrize("manner", ["ignores", "refuses"])
def test_a_server_without_n_is_asked_one_by_one_with_each_attempts_seed(manner: str) -> None:
    def answer(request: Mapping[str, Any]) -> tuple[int, object]:
        if manner == "refuses" and "n" in request:
            return refusal("only one choice at a time", "n")
        return 200, drawn(request, 1)

    peer = Peer(answer)
    with running(peer.server), solver_at(peer.url) as solver:
        first = in_order(solver, batch_of(["q0"], 4))
        asked_before = len(peer.requests)
        second = in_order(solver, batch_of(["q0"], 4))
    assert [sample.response for sample in first] == [f"q0 {seed} 0" for seed in range(4)]
    assert second == first
    assert asked_before == (5 if manner == "refuses" else 4)
    assert all("n" not in request for request in peer.requests[asked_before:])


def test_a_server_that_gives_some_of_the_choices_is_asked_for_the_rest() -> None:
    peer = Peer(lambda request: (200, drawn(request, min(2, request.get("n", 1)))))
    samples = sampled(peer, batch_of(["q0"], 4))
    assert [sample.response for sample in samples] == ["q0 0 0", "q0 0 1", "q0 2 0", "q0 3 0"]


def test_a_server_that_takes_no_seed_is_asked_without() -> None:
    def answer(request: Mapping[str, Any]) -> tuple[int, object]:
        return refusal("Unsupported parameter: 'seed'") if "seed" in request else (200, drawn(request, request["n"]))

    peer = Peer(answer)
    assert len(sampled(peer, batch_of(["q0"], 2))) == 2
    assert "seed" not in peer.requests[-1]


def test_a_greedy_attempt_is_asked_at_temperature_zero_without_seed_and_alone() -> None:
    peer = Peer(lambda request: (200, drawn(request, request.get("n", 1))))
    greedy = SampleRequest(QuestionId("q0"), -1, "q0\nThink.", None)
    samples = sampled(peer, [greedy, *batch_of(["q0"], 2)])
    assert [sample.attempt for sample in samples] == [-1, 0, 1]
    assert {"model", "messages", "max_tokens", "temperature"} == min(map(set, peer.requests), key=len)
    assert {request["temperature"]: request.get("n") for request in peer.requests} == {0.0: None, 0.8: 2}


def test_a_cut_attempt_keeps_its_finish_reason_and_tokens_are_shared_out_by_length() -> None:
    peer = Peer(lambda request: (200, completion("a" * 29, "b" * 9, tokens=80, reason="length")))
    samples = sampled(peer, batch_of(["q0"], 2))
    assert [(sample.finish_reason, sample.completion_tokens) for sample in samples] == [("length", 60), ("length", 20)]


def test_requests_are_spread_over_the_servers_and_a_dead_one_is_passed_over() -> None:
    peers = [Peer(lambda request: (200, drawn(request, request["n"]))) for _ in range(2)]
    with ExitStack() as stack:
        for peer in peers:
            stack.enter_context(running(peer.server))
        urls = [peer.url for peer in peers]
        with solver_at(*urls) as solver:
            in_order(solver, batch_of([f"q{n}" for n in range(8)], 2))
        assert [len(peer.requests) for peer in peers] == [4, 4]
        with solver_at("http://127.0.0.1:9/v1", *urls) as solver:
            assert len(in_order(solver, batch_of([f"q{n}" for n in range(8)], 2))) == 16


def test_without_a_name_the_checkpoints_path_is_asked_for() -> None:
    peer = Peer(lambda request: (200, drawn(request, 1)))
    with running(peer.server), solver_at(peer.url, model=None) as solver:
        in_order(solver, batch_of(["q0"], 1))
    assert peer.requests[0]["model"] == "/models/r1"


@pytest.mark.parametrize(
    ("answer", "says", "next_step", "calls"),
    [
        ((401, {"error": {"message": f"bad key {KEY}"}}), "refuses the key", "SOLVER_API_KEY", 1),
        ((402, {}), "no credit", "add credit", 1),
        ((404, {}), "has no model 'mine'", "SOLVER_MODEL_NAME", 1),
        (refusal("max_tokens is too large"), "max_tokens is too large", "SOLVER_MAX_NEW_TOKENS", 1),
        ((500, {}), "no usable reply in 5 tries; the last: answers 500", "SOLVER_BASE_URLS", 5),
        ((200, {"choices": []}), "no usable reply in 5 tries", "SOLVER_BASE_URLS", 5),
    ],
)
def test_a_failure_that_stays_is_one_clear_stop(
    answer: tuple[int, object], says: str, next_step: str, calls: int
) -> None:
    peer = Peer(lambda request: answer)
    with pytest.raises(SolverError, match=says) as caught:
        sampled(peer, batch_of(["q0"], 1))
    assert "the Solver's server at http://127.0.0.1" in caught.value.what
    assert next_step in caught.value.next_step
    assert KEY not in str(caught.value)
    assert len(peer.requests) == calls


def test_a_server_that_hangs_is_given_up_at_the_deadline(tmp_path: Path) -> None:
    with (
        replaying(tmp_path, 1, "hang@1") as url,
        solver_at(url, model=MODEL, timeout_s=0.05) as solver,
        pytest.raises(SolverError, match=r"no whole answer within 0\.05 s"),
    ):
        in_order(solver, batch_of(["q0"], 1))


def test_a_closed_solver_draws_nothing_and_can_be_closed_again() -> None:
    solver = solver_at("http://127.0.0.1:9/v1")
    solver.close()
    solver.close()
    with pytest.raises(SolverError, match="closed"):
        in_order(solver, batch_of(["q0"], 1))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"choices": [5]}',
        b'{"choices": {}}',
        json.dumps(completion("a", "b", "c")).encode(),
        json.dumps(completion("a", reason="content_filter")).encode(),
        json.dumps(completion("a") | {"choices": completion("a", "b")["choices"][1:]}).encode(),
        json.dumps({"choices": completion("a")["choices"] * 2}).encode(),
        json.dumps({"choices": [{"index": [], "message": {"content": "a"}, "finish_reason": "stop"}]}).encode(),
        b'{"choices": [{"message": {"content": "\\ud800"}, "finish_reason": "stop"}]}',
        b'{"choices": [{"message": {"content": null}, "finish_reason": "stop"}]}',
    ],
)
def test_a_reply_that_is_not_whole_is_no_attempt(body: bytes) -> None:
    with pytest.raises(TeacherReplyError):
        read_choices(body, 2)


def test_choices_are_taken_by_their_index() -> None:
    reply = completion("a", "b", "c")
    reply["choices"].reverse()
    assert [choice.text for choice in read_choices(json.dumps(reply).encode(), 3)] == ["a", "b", "c"]


def test_the_servers_are_checked_before_anything_is_spent(tmp_path: Path) -> None:
    with replaying(tmp_path, 1) as url:
        check_servers(settings_for(url, model=MODEL))
        with pytest.raises(SolverError, match=rf"has no model '/models/r0'; it has {MODEL}") as caught:
            check_servers(settings_for(url, url, model=None))
        assert "SOLVER_MODEL_NAME" in caught.value.next_step
        with pytest.raises(SolverError, match="cannot be reached"):
            check_servers(settings_for(url, "http://127.0.0.1:9/v1", model=MODEL))
    with pytest.raises(ConfigError, match=r"'host:8000' is no address of a Solver's server"):
        check_servers(settings_for("host:8000"))
    with pytest.raises(ConfigError, match="SOLVER_API_KEY") as refused:
        check_servers(settings_for("http://host:8000/v1", key="two words"))
    assert "two words" not in str(refused.value)
