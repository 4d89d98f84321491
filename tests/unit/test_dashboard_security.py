"""Who the dashboard answers: hosts, origins, sessions, addresses. Over real HTTP, as other programs would ask."""

from __future__ import annotations

import http.client
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest
import uvicorn
from recorded_run import record_run

from prosetting.cli.main import main
from prosetting.dashboard.app import make_app
from prosetting.dashboard.security import Sessions, host_is_ours
from prosetting.dashboard.serve import read_token
from prosetting.errors import ConfigError

TOKEN = "a-token-of-more-than-16"


@contextmanager
def server(workspace: Path, bound_to: str = "127.0.0.1") -> Iterator[int]:
    """The dashboard on loopback; `bound_to` is where it believes to listen."""
    recorded = record_run(workspace, rounds_done=1)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    app = make_app(recorded, Sessions(TOKEN, port), bound_to, ended=lambda: running.should_exit)
    running = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, lifespan="off"))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield port
    finally:
        running.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with server(tmp_path_factory.mktemp("local") / "ws") as found:
        yield found


def ask(
    port: int, path: str, method: str = "GET", body: dict[str, str] | None = None, **headers: str
) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    text = urlencode(body) if body else None
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    if text:
        connection.putheader("Content-Length", str(len(text)))
    connection.endheaders(text.encode() if text else None)
    answer = connection.getresponse()
    found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()
    connection.close()
    return found


def own(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def session(port: int) -> str:
    status, headers, _ = ask(port, "/sign-in", "POST", {"token": TOKEN}, Origin=own(port))
    assert status == 303
    assert {"HttpOnly", "SameSite=strict"} <= set(headers["set-cookie"].split("; "))
    return headers["set-cookie"].partition(";")[0]


PATHS = ("/", "/rounds", "/questions", "/teachers", "/machine", "/log", "/static/dashboard.js", "/live/overview")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "169.254.169.254", "", "[::1"])
def test_a_wrong_host_is_refused(port: int, path: str, host: str) -> None:
    status, _, body = ask(port, path, Host=host)
    assert status in (400, 403)
    assert "<html" not in body


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://localhost.evil:80"])
def test_a_wrong_origin_is_refused_whatever_is_asked(port: int, origin: str) -> None:
    for method, path in (("GET", "/"), ("GET", "/live/overview"), ("POST", "/control"), ("POST", "/sign-in")):
        body = {"wish": "stop", "token": TOKEN} if method == "POST" else None
        assert ask(port, path, method, body, Origin=origin, Cookie=session(port))[0] == 403


def test_a_tunnel_with_another_port_works(port: int) -> None:
    assert ask(port, "/rounds", Host="localhost:9999")[0] == 200


def test_every_answer_has_a_strict_policy(port: int) -> None:
    for path in ("/", "/static/dashboard.js", "/nothing", "/sign-in"):
        _, headers, _ = ask(port, path)
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"


def test_control_needs_the_token_and_an_origin(port: int) -> None:
    assert ask(port, "/control", "POST", {"wish": "stop"})[0] == 403
    status, headers, _ = ask(port, "/control", "POST", {"wish": "stop"}, Origin=own(port))
    assert (status, headers["location"]) == (303, "/sign-in")
    cookie = session(port)
    status, _, body = ask(port, "/control", "POST", {"wish": "stop"}, Origin=own(port), Cookie=cookie)
    assert status == 503
    assert "no run is live" in body
    assert ask(port, "/control", "POST", {"wish": "rm -rf"}, Origin=own(port), Cookie=cookie)[0] == 400
    assert ask(port, "/control", Cookie=cookie)[0] == 405


def test_a_wrong_token_and_a_made_up_session_open_nothing(port: int) -> None:
    assert ask(port, "/sign-in", "POST", {"token": TOKEN[:-1]}, Origin=own(port))[0] == 403
    name = session(port).partition("=")[0]
    status, headers, _ = ask(port, "/control", "POST", {"wish": "stop"}, Origin=own(port), Cookie=f"{name}=made-up")
    assert (status, headers["location"]) == (303, "/sign-in")


def test_beyond_loopback_every_page_needs_the_token(tmp_path: Path) -> None:
    with server(tmp_path / "ws", bound_to="0.0.0.0") as port:
        for path in PATHS:
            status, headers, _ = ask(port, path)
            assert (status, headers.get("location")) in ((303, "/sign-in"), (200, None))
            assert status == 303 or path.startswith("/static")
        assert ask(port, "/rounds", Cookie=session(port))[0] == 200


def test_log_names_and_paths_lead_nowhere_else(port: int) -> None:
    for path in (
        "/log?name=../prosetting.db",
        "/log?name=%2fetc%2fpasswd",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
    ):
        status, _, body = ask(port, path)
        assert status == 404, path
        assert "SQLite" not in body
        assert "import" not in body


def test_odd_questions_are_answered_with_a_message(port: int) -> None:
    assert ask(port, "/questions/ffffffffffffffff")[0] == 404
    assert ask(port, "/questions?round=99999999999999999999&zone=%27&source=x&after=%00")[0] == 200
    status, headers, _ = ask(port, "/questions?id=%2F%2Fevil.example")
    assert (status, headers["location"]) == (303, "/questions/%2F%2Fevil.example")
    assert ask(port, "/sign-in", "POST", {"token": "x" * 10_000}, Origin=own(port))[0] == 413


def test_a_journal_that_cannot_be_read_is_a_message_on_the_page(tmp_path: Path) -> None:
    with server(tmp_path / "ws") as port:
        journal = tmp_path / "ws" / "prosetting.db"
        content = bytearray(journal.read_bytes())
        content[4096:] = b"x" * (len(content) - 4096)
        journal.write_bytes(content)
        for path in ("/", "/questions", "/rounds"):
            status, headers, body = ask(port, path)
            assert status == 503
            assert "cannot be read" in body
            assert "content-security-policy" in headers


def test_hosts_are_told_apart() -> None:
    assert host_is_ours("LOCALHOST:1", "127.0.0.1")
    assert host_is_ours("[::1]:8765", "127.0.0.1")
    assert not host_is_ours("192.0.2.1", "127.0.0.1")
    assert host_is_ours("192.0.2.1:80", "0.0.0.0")
    assert not host_is_ours("rebound.example", "0.0.0.0")
    assert host_is_ours("lab.example", "lab.example")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_binding_beyond_loopback_without_a_token_is_refused(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["dashboard", "--host", host, "--workspace-dir", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "can be reached from other machines" in err
    assert "--token-file" in err


def test_a_token_file_must_be_private_and_long_enough(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    os.chmod(file, 0o644)
    with pytest.raises(ConfigError, match="other users can read"):
        read_token(file)
    os.chmod(file, 0o600)
    assert read_token(file) == TOKEN
    file.write_text("short")
    with pytest.raises(ConfigError, match="5 characters"):
        read_token(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_token(tmp_path / "none")


def test_a_port_that_is_taken_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["dashboard", "--port", port, "--workspace-dir", str(tmp_path)]) == 2
    assert "give another --port" in capsys.readouterr().err
