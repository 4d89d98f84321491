"""`prosetting dashboard` at work: the checks before anything listens, and the server."""

from __future__ import annotations

import secrets
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import uvicorn

from prosetting.core.workspace import Workspace
from prosetting.dashboard.app import make_app
from prosetting.dashboard.security import Sessions, is_loopback
from prosetting.errors import ConfigError

SHORTEST_TOKEN = 16


def serve(workspace: Workspace, *, host: str, port: int, token_file: Path | None, say: Callable[[str], None]) -> None:
    """Serve until Ctrl+C. Raises ConfigError for an address that cannot be had or must not be without a token."""
    token = read_token(token_file) if token_file else ""
    if not is_loopback(host) and not token:
        raise ConfigError(
            f"--host {host} can be reached from other machines, and there is no token that they would need",
            next_step="give one: (umask 077; openssl rand -hex 24 > token) and --token-file token;"
            " or stay on loopback and tunnel: ssh -L 8765:127.0.0.1:8765 HOST",
        )
    listener = _listen(host, port)
    port = listener.getsockname()[1]
    drawn = token or secrets.token_urlsafe(24)
    server = uvicorn.Server(
        uvicorn.Config(
            make_app(workspace, Sessions(drawn, port), host, ended=lambda: server.should_exit),
            access_log=False,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=3,
            lifespan="off",
        )
    )
    say(f"dashboard of {workspace.root}: http://{_in_url(host)}:{port}/   (Ctrl+C ends it, the run goes on)")
    say(
        "pause, resume and stop need the token of the token file"
        if token
        else f"token for pause, resume, stop: {drawn}"
    )
    server.run(sockets=[listener])


def read_token(file: Path) -> str:
    """The token of a file that only its owner can read. Raises ConfigError."""
    try:
        mode, token = file.stat().st_mode, file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"the token file {file} cannot be read: {error}", next_step="check --token-file") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"other users can read the token file {file}", next_step=f"run: chmod 600 {file}")
    if len(token) < SHORTEST_TOKEN:
        raise ConfigError(
            f"the token in {file} has {len(token)} characters, it needs {SHORTEST_TOKEN}",
            next_step=f"make one: (umask 077; openssl rand -hex 24 > {file})",
        )
    return token


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigError(
            f"cannot listen at {host}, port {port}: {getattr(error, 'strerror', None) or error}",
            next_step="give another --port, or --port 0 for any free one",
        ) from error
    return listener


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
