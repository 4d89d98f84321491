"""Servers that others start: that they hold the checkpoint, and how they get another one."""

from __future__ import annotations

import shlex
import sys
import threading
import time
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from test_server_solver import PARAMS, Peer, batch_of, completion, running, settings_for

from prosetting.collectors import given_servers
from prosetting.collectors.given_servers import GivenServers, check_servers
from prosetting.collectors.server_solver import ServerSolver
from prosetting.config import Settings
from prosetting.core import children, orphans
from prosetting.errors import ConfigError, SolverError

CHECKPOINT = "/runs/checkpoints/merged solver_r3"


class Vllm:
    """A server whose list of models tells where the weights of `solver` are, as vLLM's does."""

    def __init__(self, root: Path) -> None:
        """`root` is a file that holds it, so that a command can change it."""

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = b'{"data": [{"id": "solver", "root": "%s"}]}' % root.read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given_servers, "POLL_S", 0.02)


def command(code: str, *arguments: str) -> str:
    return shlex.join([sys.executable, "-c", code, *arguments])


def settings(*urls: str, name: str | None = "solver", reload: str = "", **more: object) -> Settings:
    given = settings_for(*urls, model=name).model_dump() | {"solver_reload_command": reload, "first_training_round": 1}
    return Settings.model_validate(given | more)


def opened(given: Settings, log_file: Path) -> None:
    GivenServers(given, CHECKPOINT, log_file=log_file).open(threading.Event())


def test_the_command_is_run_with_the_checkpoint_and_waited_for(tmp_path: Path) -> None:
    roots = [tmp_path / "root 0", tmp_path / "root 1"]
    for root in roots:
        root.write_text("/runs/base")
    reload = command(
        "import sys; [open(file, 'w').write(sys.argv[1]) for file in sys.argv[2:]]", "{model}", *map(str, roots)
    )
    with ExitStack() as stack:
        servers = [Vllm(root) for root in roots]
        for each in servers:
            stack.enter_context(running(each.server))
        given = settings(*(each.url for each in servers), reload=reload)
        opened(given, tmp_path / "log")
        assert [root.read_text() for root in roots] == [CHECKPOINT] * 2
        # They say that they hold it: nothing is run again.
        opened(given.model_copy(update={"solver_reload_command": command("raise SystemExit(1)")}), tmp_path / "log")


def test_servers_that_do_not_take_the_checkpoint_are_an_error(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.write_text("/runs/base")
    server = Vllm(root)
    with running(server.server), pytest.raises(SolverError, match="still do not serve /runs/checkpoints") as caught:
        opened(settings(server.url, reload=command("pass"), solver_start_timeout=0.3), tmp_path / "log")
    assert "{model}" in caught.value.next_step


@pytest.mark.parametrize(
    ("reload", "says"),
    [
        (command("raise SystemExit('no such fleet')"), "(?s)failed with exit status 1.*no such fleet"),
        ("/no/such/program {model}", "cannot be started"),
        (command("import time; time.sleep(60)"), r"has not ended within 0.5 s \(SOLVER_START_TIMEOUT\)"),
    ],
)
def test_a_command_that_fails_is_an_error_with_its_last_words(tmp_path: Path, reload: str, says: str) -> None:
    peer = Peer(lambda request: (200, completion("a")), models=["solver"])
    with running(peer.server), pytest.raises(SolverError, match=says):
        opened(
            settings(peer.url, reload=reload, solver_start_timeout=0.5 if "sleep" in reload else 20), tmp_path / "log"
        )


def test_what_the_command_starts_is_the_users_and_outlives_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(orphans.MARK, "1:2")
    monkeypatch.setenv(children.RUN_PID, "3")
    code = "import os, sys; open(sys.argv[1], 'w').write(' '.join(os.environ) + ' ' + str(os.getsid(0) == os.getpid()))"
    peer = Peer(lambda request: (200, completion("a")), models=["solver"])
    with running(peer.server):
        opened(settings(peer.url, reload=command(code, str(tmp_path / "env"))), tmp_path / "log")
    told = (tmp_path / "env").read_text().split()
    assert not {orphans.MARK, children.RUN_PID} & set(told)
    assert told[-1] == "True"


def test_a_solver_that_is_closed_does_not_wait_for_the_command(tmp_path: Path) -> None:
    peer = Peer(lambda request: (200, completion("a")), models=["solver"])
    given = settings(peer.url, reload=command("import time; time.sleep(3)"))
    with running(peer.server):
        solver = ServerSolver(GivenServers(given, CHECKPOINT, log_file=tmp_path / "log"))
        closing = threading.Timer(0.1, solver.close)
        closing.start()
        started = time.monotonic()
        with pytest.raises(SolverError, match="closed"):
            list(solver.sample(batch_of(["q"], 1), PARAMS))
        closing.join()
    assert time.monotonic() - started < 2.5


def test_a_run_that_trains_on_servers_with_fixed_weights_is_refused_before_it_starts() -> None:
    peer = Peer(lambda request: (200, completion("a")), models=["solver"])
    with running(peer.server):
        with pytest.raises(
            ConfigError, match=r"trains from round 1 on.*go on with the weights that they call"
        ) as caught:
            check_servers(settings(peer.url))
        assert "SOLVER_RELOAD_COMMAND" in caught.value.next_step
        assert "SOLVER_ENGINE=vllm" in caught.value.next_step
        check_servers(settings(peer.url, reload="bash reload.sh {model}"))
        check_servers(settings(peer.url, first_training_round=99))


@pytest.mark.parametrize(
    ("reload", "says"), [("bash 'unclosed", "does not read"), ("/no/such/program {model}", "there is no such program")]
)
def test_a_command_that_cannot_be_run_is_refused_before_anything_is_spent(reload: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"SOLVER_RELOAD_COMMAND.*{says}") as caught:
        check_servers(settings("http://127.0.0.1:9/v1", reload=reload))
    assert "bash reload.sh {model}" in caught.value.next_step


def test_a_server_that_does_not_have_the_new_checkpoint_points_to_the_command() -> None:
    peer = Peer(lambda request: (404, {"error": {"message": "no such model"}}))
    servers = GivenServers(settings(peer.url, name=None), CHECKPOINT)
    no_model = pytest.raises(SolverError, match="has no model '/runs/checkpoints")
    with running(peer.server), ServerSolver(servers) as solver, no_model as caught:
        list(solver.sample(batch_of(["q"], 1), PARAMS))
    assert "SOLVER_RELOAD_COMMAND" in caught.value.next_step


def test_a_file_of_addresses_that_cannot_be_read_or_is_empty_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"SOLVER_BASE_URLS=@{tmp_path}/none cannot be read: No such file"):
        check_servers(settings(f"@{tmp_path}/none", first_training_round=99))
    (tmp_path / "empty").write_text("# none yet\n")
    with pytest.raises(ConfigError, match="names no server"):
        check_servers(settings(f"@{tmp_path}/empty", first_training_round=99))
