"""Servers that the run starts: begun, watched, started again, ended, and refused where they cannot start.

The processes, signals and sockets are real; vLLM itself is stood in for (vllm_stand_in.py).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from functools import partial
from pathlib import Path

import processes
import pytest
import vllm_stand_in

from prosetting.collectors import server_fleet, vllm_servers
from prosetting.collectors.server_solver import ServerSolver
from prosetting.collectors.solver import SampleRequest, SamplingParams
from prosetting.collectors.solver_engines import ENGINES
from prosetting.collectors.vllm_servers import VllmServers, check_vllm, gpus_of_replicas
from prosetting.config import Settings
from prosetting.core import children
from prosetting.errors import ConfigError, SolverError
from prosetting.records import QuestionId

PARAMS = SamplingParams(max_new_tokens=8, temperature=1.0, top_p=1.0)
until = partial(processes.until, within_s=30.0)
RUN = """
import sys, threading
from pathlib import Path
from prosetting.config import Settings
from prosetting.collectors.vllm_servers import VllmServers
servers = VllmServers(Settings(physical_solver_gpu=(), solver_engine="vllm"), "some/model", Path(sys.argv[1]))
servers.open(threading.Event())
print(servers._replicas[0].child.pid, flush=True)
threading.Event().wait()
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"WATCH_S": 0.1, "RETURN_S": 0.05, "LIST_S": 0.05, "DRAIN_S": 0.3}.items():
        monkeypatch.setattr(server_fleet, name, seconds)
    monkeypatch.setattr(vllm_servers, "POLL_S", 0.05)
    monkeypatch.setattr(children, "END_GRACE_S", 0.5)


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in vllm_stand_in.install(tmp_path / "stand_in").items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("tokenizer.json", "model.safetensors"):
        (folder / name).touch()
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": 12}))
    return folder


def settings(model: Path | str = "some/model", **more: object) -> Settings:
    given = {"solver_model_path": str(model), "solver_engine": "vllm", "physical_solver_gpu": (), **more}
    return Settings.model_validate(given)


def requests(count: int) -> list[SampleRequest]:
    return [SampleRequest(QuestionId(f"q{n}"), attempt, f"q{n}", 1) for n in range(count) for attempt in range(2)]


def members(group: int) -> list[int]:
    """The processes of a group that are not dead."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(entry.name))
    return found


def started_in(log: Path) -> list[dict]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith('{"started"')]


@pytest.mark.usefixtures("vllm")
def test_replicas_start_on_their_gpus_share_the_work_and_leave_nothing(model: Path, tmp_path: Path) -> None:
    given = settings(
        model, physical_solver_gpu=(4, 5, 6, 7), solver_tensor_parallel=2, solver_server_args="--manner ''"
    )
    servers = VllmServers(given, str(model), tmp_path)
    groups = [replica.child.pid for replica in servers._replicas]
    with ServerSolver(servers) as solver:
        samples = list(solver.sample(requests(40), PARAMS))
        assert all(len(members(group)) == 3 for group in groups), "a guard, a server and its engine each"
        keys = [replica.endpoint.api_key for replica in servers._replicas]
    until(lambda: not any(map(members, groups)))
    assert Counter((each.question_id, each.attempt) for each in samples) == Counter(
        (each.question_id, each.attempt) for each in requests(40)
    )
    assert len({each.response for each in samples}) == 2, "both have answered"
    logs = [tmp_path / f"vllm_server_{number}.log" for number in range(2)]
    assert [started_in(log)[0]["gpus"] for log in logs] == ["4,5", "6,7"]
    told = started_in(logs[0])[0]["started"]
    assert (told["tensor_parallel_size"], told["generation_config"], told["host"]) == ("2", "vllm", "127.0.0.1")
    assert len(set(keys)) == 2
    assert not any(key in log.read_text() for key in keys for log in logs)


@pytest.mark.usefixtures("vllm")
def test_a_killed_replica_loses_nothing_and_is_started_again(model: Path, tmp_path: Path) -> None:
    servers = VllmServers(settings(model, solver_replicas=2), str(model), tmp_path)
    with ServerSolver(servers) as solver:
        list(solver.sample(requests(4), PARAMS))
        first = servers._replicas[0].child.pid
        server = next(pid for pid in members(first) if b"api_server" in Path(f"/proc/{pid}/cmdline").read_bytes()
                      and b"guarded" not in Path(f"/proc/{pid}/cmdline").read_bytes())  # fmt: skip
        os.kill(server, signal.SIGKILL)
        assert len(list(solver.sample(requests(40), PARAMS))) == 80
        until(lambda: not members(first))  # its engine too
        until(lambda: len(started_in(tmp_path / "vllm_server_0.log")) == 2)
        until(lambda: sum(each.lives for each in solver._fleet._servers.values()) == 2)
        answered_by = {each.response for each in solver.sample(requests(40), PARAMS)}
        assert len(answered_by) == 2, "how many each, is a matter of who is quick"
        assert not any(str(server) in response for response in answered_by)


@pytest.mark.usefixtures("vllm")
def test_a_replica_that_listens_no_more_and_does_not_end_is_replaced(model: Path, tmp_path: Path) -> None:
    given = settings(model, solver_replicas=2, solver_server_args="--manner lingers")
    with ServerSolver(VllmServers(given, str(model), tmp_path)) as solver:
        answered_by = {each.response.split()[0] for each in solver.sample(requests(40), PARAMS)}
        assert len(answered_by) == 2
        struck = int(answered_by.pop())
        group = os.getpgid(struck)
        os.kill(struck, signal.SIGTERM)
        until(lambda: not members(group))
        until(lambda: sum(each.lives for each in solver._fleet._servers.values()) == 2)
        assert len({each.response.split()[0] for each in solver.sample(requests(40), PARAMS)} - {str(struck)}) == 2


@pytest.mark.usefixtures("vllm")
def test_a_replica_that_dies_again_and_again_stays_away_and_none_left_is_an_error(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_servers, "STARTS", 2)
    servers = VllmServers(settings(model, solver_server_args="--manner ends"), str(model), tmp_path)
    until(lambda: servers._replicas[0].child.poll() is not None)
    assert len(servers.endpoints()) == 1
    until(lambda: servers._replicas[0].child.poll() is not None)
    with pytest.raises(SolverError, match="vLLM server 0 has died 2 times, and there is no other"):
        servers.endpoints()
    servers.close()


@pytest.mark.usefixtures("vllm")
def test_new_weights_are_new_servers(model: Path, tmp_path: Path) -> None:
    engine = ENGINES["vllm"]
    given = settings(model)
    for checkpoint in ("org/base", str(model)):
        solver = engine.open(given, tmp_path, checkpoint)
        assert {each.response.split()[1] for each in solver.sample(requests(2), PARAMS)} == {checkpoint}
        solver.close()


@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize(
    ("manner", "says"),
    [
        ("ends", "ended while it started.*\n.*ValueError: the model cannot be loaded"),
        ("hangs", "does not answer after"),
    ],
)
def test_a_server_that_never_gets_healthy_is_one_error_with_its_last_words(
    model: Path, tmp_path: Path, manner: str, says: str
) -> None:
    given = settings(
        model, solver_server_args=f"--manner {manner}", solver_start_timeout=1 if manner == "hangs" else 30
    )
    servers = VllmServers(given, str(model), tmp_path)
    group = servers._replicas[0].child.pid
    with ServerSolver(servers) as solver, pytest.raises(SolverError, match=rf"(?s)vLLM server 0 {says}") as caught:
        list(solver.sample(requests(1), PARAMS))
    assert "SOLVER_START_TIMEOUT" in caught.value.next_step
    until(lambda: not members(group))


@pytest.mark.usefixtures("vllm")
def test_a_solver_that_is_closed_while_its_servers_start_ends_them(model: Path, tmp_path: Path) -> None:
    servers = VllmServers(settings(model, solver_server_args="--manner hangs"), str(model), tmp_path)
    group, solver = servers._replicas[0].child.pid, ServerSolver(servers)
    closing = threading.Timer(0.2, solver.close)
    closing.start()
    with pytest.raises(SolverError, match="closed"):
        list(solver.sample(requests(1), PARAMS))
    closing.join()
    until(lambda: not members(group))


@pytest.mark.usefixtures("vllm")
def test_servers_end_once_their_run_was_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        group = int(run.stdout.readline())
        assert len(members(group)) == 3
        run.kill()
    until(lambda: not members(group))


# before anything is started


@pytest.mark.usefixtures("vllm")
def test_what_can_start_passes(model: Path) -> None:
    check_vllm(settings(model))
    check_vllm(settings(model, physical_solver_gpu=(0, 1, 2, 3), solver_tensor_parallel=2))


def test_an_environment_without_vllm_is_named(model: Path) -> None:
    with pytest.raises(ConfigError, match=f"the environment of {sys.executable} has no vLLM") as caught:
        check_vllm(settings(model))
    assert "SOLVER_SERVER_PYTHON" in caught.value.next_step
    with pytest.raises(ConfigError, match=r"SOLVER_SERVER_PYTHON=/no/python is no interpreter"):
        check_vllm(settings(model, solver_server_python="/no/python"))


@pytest.mark.usefixtures("vllm")
def test_a_port_in_use_is_named(model: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1, for vLLM server 0, is in use") as caught:
            check_vllm(settings(model, solver_replicas=2, solver_server_port=port))
    assert "SOLVER_SERVER_PORT=0" in caught.value.next_step


@pytest.mark.parametrize(
    ("gpus", "size", "replicas", "says"),
    [
        ((), 2, None, "PHYSICAL_SOLVER_GPU has none"),
        ((0, 1, 2), 2, None, "SOLVER_TENSOR_PARALLEL=2 does not fit the 3 GPUs of PHYSICAL_SOLVER_GPU=0,1,2"),
        ((0,), 2, None, "does not fit the 1 GPUs"),
        ((0, 1), 1, 3, "SOLVER_REPLICAS=3 with SOLVER_TENSOR_PARALLEL=1 does not fit the 2 GPUs"),
    ],
)
def test_a_tensor_parallel_size_that_the_gpus_do_not_fit_is_named(
    gpus: tuple[int, ...], size: int, replicas: int | None, says: str
) -> None:
    given = settings(physical_solver_gpu=gpus, solver_tensor_parallel=size, solver_replicas=replicas)
    with pytest.raises(ConfigError, match=says) as caught:
        gpus_of_replicas(given)
    assert "SOLVER_TENSOR_PARALLEL" in caught.value.next_step


def test_a_tensor_parallel_size_that_does_not_divide_the_models_heads_is_named(model: Path) -> None:
    given = settings(model, physical_solver_gpu=tuple(range(8)), solver_tensor_parallel=8)
    with pytest.raises(ConfigError, match="SOLVER_TENSOR_PARALLEL=8 does not divide the 12 attention heads") as caught:
        check_vllm(given)
    assert "one of 1, 2, 3, 4, 6" in caught.value.next_step


def test_replicas_without_a_gpu_are_as_many_as_are_set() -> None:
    assert gpus_of_replicas(settings()) == [()]
    assert gpus_of_replicas(settings(solver_replicas=2)) == [(), ()]
    assert gpus_of_replicas(settings(physical_solver_gpu=(3, 1, 2), solver_tensor_parallel=2, solver_replicas=1)) == [
        (3, 1)
    ]


def test_arguments_that_do_not_read_are_named(model: Path) -> None:
    with pytest.raises(ConfigError, match="SOLVER_SERVER_ARGS"):
        check_vllm(settings(model, solver_server_args="--chat-template 'unclosed"))


def test_a_run_says_what_is_missing_and_leaves_nothing(model: Path, tmp_path: Path) -> None:
    questions = tmp_path / "questions.json"
    questions.write_text(json.dumps([{"question": "What is 1+1?", "answer": "2"}]))
    (tmp_path / "empty.env").touch()
    flags = {"env-file": "empty.env", "workspace-dir": "run", "questions-file": questions, "solver-model-path": model}
    given = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "prosetting", "run", *given, "--solver-engine", "vllm"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "has no vLLM\n  → pip install vllm there, or set SOLVER_SERVER_PYTHON" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
