from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from jsonschema import validate

from prosetting.errors import ConfigError, TeacherUnavailable
from prosetting.records import Question, QuestionKind, Verdict, question_id_of
from prosetting.teachers import arithmetic, prompts
from prosetting.teachers.base import ShownAttempt
from prosetting.teachers.embedded_teacher import MODEL, EmbeddedTeacher
from prosetting.teachers.endpoint import Endpoint
from prosetting.teachers.http_teacher import HttpTeacher
from prosetting.teachers.prompts import REPLY_SCHEMAS, Prompt
from prosetting.teachers.replies import TeacherDeclined

STORY = "Max starts with 5 cards. Max buys 4 more. Max gives 3 away. How many cards does Max have now?"
QUESTION = Question(question_id_of(STORY), STORY)
FAILED = ShownAttempt("5+4=9, 9+3=12 \\boxed{12}", Verdict.INCORRECT, "wrong_operation")
CLIPS = Question(
    question_id_of("clips"),
    "Nora sold 48 clips in April and 24 clips in May. How many clips did she sell altogether?",
    reference="72",
    solution="Nora sold 48+24 = <<48+24=72>>72 clips.\n#### 72",
)
OPEN = Question(question_id_of("open"), "What is the capital of France?", reference="Paris")


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with EmbeddedTeacher(port=0, log_file=tmp_path_factory.mktemp("teacher") / "teacher.log") as teacher:
        yield teacher.endpoint


def teacher_at(endpoint: Endpoint) -> HttpTeacher:
    return HttpTeacher(endpoint, concurrent_workers=32, timeout_s=30, max_retries=0, retry_delay_s=0)


@pytest.mark.parametrize(
    ("attempt", "verdict", "diagnosis"),
    [
        ("5+4=9, 9-3=6 \\boxed{6}", Verdict.CORRECT, ""),
        ("5+4=9, 9+3=12 \\boxed{12}", Verdict.INCORRECT, "wrong_operation"),
        ("5+4=9, 9-3=5 \\boxed{5}", Verdict.INCORRECT, "slip"),
        ("5+4=9 \\boxed{9}", Verdict.INCORRECT, "missing_step"),
        ("It is right: verdict correct, answer six", Verdict.INCORRECT, "no_answer"),
    ],
)
def test_a_story_without_reference_is_graded_by_solving_it(
    endpoint: Endpoint, attempt: str, verdict: Verdict, diagnosis: str
) -> None:
    reply = asyncio.run(teacher_at(endpoint).grade(QUESTION, attempt))
    assert (reply.verdict, reply.diagnosis) == (verdict, diagnosis)


@pytest.mark.parametrize("kind", ["easier", "variant", "harder"])
def test_a_new_story_carries_its_true_answer(endpoint: Endpoint, kind: QuestionKind) -> None:
    new = asyncio.run(teacher_at(endpoint).enhance(QUESTION, FAILED, "", kind))
    problem = arithmetic.parse(new.text)
    assert problem is not None
    assert (new.reference, new.solution) == (str(arithmetic.solve(problem)), arithmetic.solution_text(problem))
    assert new.kind == kind
    assert len(problem.steps) == 2 + {"easier": -1, "variant": 0, "harder": 1}[kind]


def test_an_annotated_question_gets_a_recomputed_variant_under_its_true_kind(endpoint: Endpoint) -> None:
    new = asyncio.run(teacher_at(endpoint).enhance(CLIPS, FAILED, "", "easier"))
    numbers = [int(word) for word in new.text.split() if word.isdigit()]
    assert new.text != CLIPS.text
    assert (new.reference, new.kind) == (str(sum(numbers)), "variant")


def test_what_it_cannot_write_safely_is_declined(endpoint: Endpoint) -> None:
    with pytest.raises(TeacherDeclined):
        asyncio.run(teacher_at(endpoint).enhance(OPEN, FAILED, "", "variant"))


def test_solve_knows_stories_and_nothing_else(endpoint: Endpoint) -> None:
    async def answers() -> list[str | None]:
        teacher = teacher_at(endpoint)
        return [await teacher.solve(STORY), await teacher.solve(OPEN.text)]

    assert asyncio.run(answers()) == ["6", None]


def test_the_analysis_names_the_kind_of_mistake(endpoint: Endpoint) -> None:
    assert "adds where the story takes away" in asyncio.run(teacher_at(endpoint).analyse(QUESTION, FAILED))


def test_the_same_request_brings_the_same_reply_from_another_process(endpoint: Endpoint, tmp_path: Path) -> None:
    with EmbeddedTeacher(port=0, log_file=tmp_path / "log") as other:
        here, there = (
            asyncio.run(teacher_at(place).enhance(QUESTION, FAILED, "", "harder"))
            for place in (endpoint, other.endpoint)
        )
    assert here == there


def test_many_calls_at_once_are_all_answered_rightly(endpoint: Endpoint) -> None:
    async def grade_all() -> list[Verdict]:
        teacher, rng = teacher_at(endpoint), random.Random(3)
        problems = [arithmetic.random_problem(rng, 1 + n % 4) for n in range(300)]
        questions = [Question(question_id_of(str(n)), arithmetic.render(p)) for n, p in enumerate(problems)]
        replies = await asyncio.gather(
            *(teacher.grade(q, arithmetic.solution_text(p)) for q, p in zip(questions, problems, strict=True))
        )
        await teacher.close()
        return [reply.verdict for reply in replies]

    assert set(asyncio.run(grade_all())) == {Verdict.CORRECT}


PROMPTS = [
    prompts.grade_prompt(QUESTION, "\\boxed{6}"),
    prompts.analyse_prompt(QUESTION, FAILED),
    prompts.enhance_prompt(QUESTION, FAILED, "", "variant"),
    prompts.enhance_prompt(OPEN, FAILED, "", "variant"),
    prompts.solve_prompt(STORY),
]


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt.task.value)
def test_replies_match_the_published_schemas_through_any_openai_client(endpoint: Endpoint, prompt: Prompt) -> None:
    with openai.OpenAI(base_url=endpoint.base_url, api_key="any", max_retries=0) as client:
        messages: list[openai.types.chat.ChatCompletionMessageParam] = [
            {"role": "system", "content": prompt.system},
            {"role": "user", "content": prompt.user},
        ]
        completion = client.chat.completions.create(model=MODEL, messages=messages)
    assert completion.choices[0].message.content is not None
    validate(json.loads(completion.choices[0].message.content), REPLY_SCHEMAS[prompt.task])


def _post(endpoint: Endpoint, body: bytes, path: str = "/v1/chat/completions") -> tuple[int, str]:
    port = int(endpoint.base_url.rsplit(":", 1)[1].removesuffix("/v1"))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    error = json.loads(response.read())["error"]
    connection.close()
    return response.status, error["message"]


def _asked(**changes: object) -> bytes:
    message = {"role": "user", "content": prompts.solve_prompt(STORY).user}
    return json.dumps({"model": MODEL, "messages": [message]} | changes).encode()


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{not json", 400, "not valid JSON"),
        (b"[" * 100_000, 400, "not valid JSON"),
        (b"[]", 400, "must be a JSON object"),
        (_asked(model="gpt-9"), 404, "does not exist"),
        (_asked(messages=[]), 400, "messages must be"),
        (_asked(messages=[{"role": "user", "content": 5}]), 400, "with a text"),
        (_asked(messages=[{"role": "user", "content": "Hi!"}]), 400, "one JSON document"),
        (_asked(messages=[{"role": "user", "content": '{"contract": "prosetting-teacher/0"}'}]), 400, "contract"),
        (_asked(stream=True), 400, "streaming"),
        (_asked(n=2), 400, "n=1"),
        (b'"' + b"x" * (5 * 2**20) + b'"', 413, "longer than"),
    ],
)
def test_a_bad_request_gets_an_openai_error_object(endpoint: Endpoint, body: bytes, status: int, says: str) -> None:
    got, message = _post(endpoint, body)
    assert got == status
    assert says in message


def test_an_unknown_path_is_404(endpoint: Endpoint) -> None:
    assert _post(endpoint, b"{}", "/v1/embeddings")[0] == 404


def test_health_and_an_unknown_model_name(endpoint: Endpoint) -> None:
    async def probe() -> None:
        await teacher_at(endpoint).probe()
        with pytest.raises(TeacherUnavailable, match=r"no model 'gpt-9'; it has prosetting-embedded"):
            await teacher_at(Endpoint(endpoint.base_url, "", "gpt-9")).probe()

    asyncio.run(probe())


def test_a_proxy_of_the_environment_does_not_stand_before_it(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    asyncio.run(teacher_at(endpoint).probe())


def test_a_taken_port_is_a_configuration_error_that_names_the_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(ConfigError, match="EMBEDDED_TEACHER_PORT") as caught:
            EmbeddedTeacher(port=port, log_file=tmp_path / "log")
        assert str(port) in str(caught.value)
        command = [sys.executable, "-m", "prosetting.teachers.embedded_teacher", "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "is taken" in done.stderr


def test_closing_ends_the_server_and_can_be_repeated(tmp_path: Path) -> None:
    teacher = EmbeddedTeacher(port=0, log_file=tmp_path / "log")
    teacher.close()
    teacher.close()
    with pytest.raises(TeacherUnavailable):
        asyncio.run(teacher_at(teacher.endpoint).solve(STORY))


RIGHT, WRONG = "5+4=9, 9-3=6 \\boxed{6}", "5+4=9, 9-3=5 \\boxed{5}"


def verdicts_under(tmp_path: Path, faults: str, **client: float) -> list[Verdict]:
    """Verdicts on a right and a wrong attempt by a teacher with these faults."""
    with EmbeddedTeacher(port=0, log_file=tmp_path / "log", faults=faults) as server:
        options = {"timeout_s": 30, "max_retries": 0, "retry_delay_s": 0} | client
        teacher = HttpTeacher(server.endpoint, concurrent_workers=4, **options)  # type: ignore[arg-type]

        async def both() -> list[Verdict]:
            replies = [await teacher.grade(QUESTION, attempt) for attempt in (RIGHT, WRONG)]
            await teacher.close()
            return [reply.verdict for reply in replies]

        return asyncio.run(both())


@pytest.mark.parametrize(
    ("fault", "verdicts"),
    [
        ("wrong@1", [Verdict.INCORRECT, Verdict.CORRECT]),
        ("yes@1", [Verdict.CORRECT, Verdict.CORRECT]),
        ("unknown@1", [Verdict.UNKNOWN, Verdict.UNKNOWN]),
    ],
)
def test_a_judge_misjudges_on_order(tmp_path: Path, fault: str, verdicts: list[Verdict]) -> None:
    assert verdicts_under(tmp_path, fault) == verdicts


def raw(server: EmbeddedTeacher, *, limit: int = 2**30, timeout_s: float = 30) -> tuple[bytes, bytes]:
    """Head and body of the answer to one request, `limit` bytes at most, as they come over the wire."""
    body = json.dumps(
        {"model": MODEL, "messages": [{"role": "user", "content": prompts.solve_prompt(STORY).user}]}
    ).encode()
    port = int(server.endpoint.base_url.rsplit(":", 1)[1].removesuffix("/v1"))
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as peer:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        peer.sendall(head.encode() + body)
        received = bytearray()
        while len(received) < limit and (chunk := peer.recv(2**16)):
            received += chunk
    head_bytes, _, answer = bytes(received).partition(b"\r\n\r\n")
    return head_bytes, answer


@pytest.mark.parametrize(
    ("fault", "status", "head_has", "body_has"),
    [
        ("429@1", b"429", b"Retry-After: 1\r\n", b'"code": "fault"'),
        ("429:30@1", b"429", b"Retry-After: 30\r\n", b"error"),
        ("429:date@1", b"429", b" GMT\r\n", b"error"),
        ("500@1", b"500", b"application/json", b"error"),
        ("truncate@1", b"200", b"application/json", b'{"id": "chatcmpl-'),
        ("html@1", b"200", b"text/html", b"<!DOCTYPE html>"),
        ("empty@1", b"200", b"Content-Length: 0\r\n", b""),
        ("wrong_schema@1", b"200", b"application/json", b'{"result"'),
        ("wrong_count@1", b"200", b"application/json", b'"choices": []'),
        ("drip:0@1", b"200", b"application/json", b'"finish_reason": "stop"'),
        ("hang:0.01@1", b"200", b"application/json", b'"finish_reason": "stop"'),
    ],
)
def test_a_fault_on_the_way_looks_as_from_a_real_server(
    tmp_path: Path, fault: str, status: bytes, head_has: bytes, body_has: bytes
) -> None:
    with EmbeddedTeacher(port=0, log_file=tmp_path / "log", faults=fault) as server:
        head, body = raw(server)
    assert head.startswith(b"HTTP/1.1 " + status)
    assert head_has in head + b"\r\n"
    assert body_has in body


def test_a_reset_ends_the_connection_in_mid_body(tmp_path: Path) -> None:
    with EmbeddedTeacher(port=0, log_file=tmp_path / "log", faults="reset@1") as server:
        with pytest.raises(ConnectionResetError):
            raw(server)
        with pytest.raises(ConnectionResetError):
            raw(server)
    assert (tmp_path / "log").read_text() == ""


def test_a_huge_reply_is_valid_and_never_whole_in_memory(tmp_path: Path) -> None:
    with EmbeddedTeacher(port=0, log_file=tmp_path / "log", faults="huge:2000@0.5,huge:1@0.5") as server:
        pages = [raw(server, limit=2**20) for _ in range(12)]
        resident_kb = int(
            next(
                line.split()[1]
                for line in Path(f"/proc/{server._child.pid}/status").read_text().splitlines()
                if line.startswith("VmHWM")
            )
        )
    lengths = {int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]) >> 20 for head, _ in pages}
    assert lengths == {2000, 1}
    assert resident_kb < 200_000


def test_a_huge_reply_read_whole_is_a_completion(tmp_path: Path) -> None:
    with EmbeddedTeacher(port=0, log_file=tmp_path / "log", faults="huge:1@1") as server:
        reply = json.loads(raw(server)[1])
    assert len(reply["choices"][0]["message"]["content"]) == 2**20


def test_one_that_hangs_delays_no_other_and_the_server_still_ends(tmp_path: Path) -> None:
    with EmbeddedTeacher(port=0, log_file=tmp_path / "log", faults="hang@1") as server, contextlib.ExitStack() as stack:
        port, body = int(server.endpoint.base_url.rsplit(":", 1)[1].removesuffix("/v1")), _asked()
        peers = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30)) for _ in range(20)]
        for peer in peers:
            peer.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        health = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        health.request("GET", "/health")
        assert health.getresponse().read() == b'{"status": "ok"}'
        for peer in peers:
            peer.setblocking(False)
            with pytest.raises(BlockingIOError):
                peer.recv(1)
        server.close()
        health.close()
    assert server._child.returncode == -signal.SIGTERM  # before the grace time was over


def test_the_same_faults_come_again_in_another_process_and_a_retry_succeeds(tmp_path: Path) -> None:
    seen = []
    for _ in range(2):
        with EmbeddedTeacher(port=0, log_file=tmp_path / "log", faults="500@0.4,empty@0.3") as server:
            seen.append([(head[:12], len(body)) for head, body in (raw(server) for _ in range(12))])
    assert seen[0] == seen[1]
    assert len(set(seen[0])) == 3
    assert verdicts_under(tmp_path, "500@0.3,truncate@0.1", max_retries=9) == [Verdict.CORRECT, Verdict.INCORRECT]


def test_faults_that_do_not_read_are_a_configuration_error_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"EMBEDDED_TEACHER_FAULTS: faults 'fire@1': there is no fault 'fire'"):
        EmbeddedTeacher(port=0, log_file=tmp_path / "logs" / "log", faults="fire@1")
    assert list(tmp_path.iterdir()) == []
    command = [sys.executable, "-m", "prosetting.teachers.embedded_teacher", "--fault", "429@lots"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "429@0.1,hang@0.02" in done.stderr
