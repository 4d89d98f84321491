"""The offline teacher: a real OpenAI-compatible server on loopback, and the run's handle on it.

    python -m prosetting.teachers.embedded_teacher --port 0      prints {"port": N} once it listens

What it answers is worked out in `offline_tasks`; here is only HTTP. Any OpenAI client can talk to it.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import json
import re
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from prosetting.core.children import END_GRACE_S, end_child, end_with_the_run, log_tail, start_child
from prosetting.errors import EXIT_USAGE, ConfigError, TeacherUnavailable
from prosetting.teachers.endpoint import Endpoint
from prosetting.teachers.offline_tasks import BadRequest, reply_to

MODEL = "prosetting-embedded"
HOST = "127.0.0.1"
MAX_REQUEST_BYTES = 4 * 2**20
START_DEADLINE_S = 60.0
IDLE_CONNECTION_S = 300.0


class RequestError(Exception):
    """A request that is answered with an OpenAI error object."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def complete(request: object) -> dict[str, Any]:
    """The chat completion that answers a decoded request body. Raises RequestError."""
    if not isinstance(request, Mapping):
        raise RequestError(400, "the body must be a JSON object")
    if request.get("model") != MODEL:
        raise RequestError(
            404, f"the model {request.get('model')!r} does not exist; use {MODEL!r}", code="model_not_found"
        )
    if request.get("stream"):
        raise RequestError(400, "streaming is not supported", param="stream")
    if request.get("n") not in (None, 1):
        raise RequestError(400, "only n=1 is supported", param="n")
    user = _user_message(request.get("messages"))
    try:
        reply = json.dumps(reply_to(json.loads(user)), ensure_ascii=False)
    except BadRequest as error:
        raise RequestError(400, str(error), param="messages") from None
    except (ValueError, RecursionError):
        message = "the user message must be one JSON document (docs/teacher.md)"
        raise RequestError(400, message, param="messages") from None
    prompt_tokens, completion_tokens = len(user) // 4, len(reply) // 4
    return {
        "id": f"chatcmpl-{hashlib.sha256(user.encode('utf-8', 'replace')).hexdigest()[:24]}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": MODEL,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": reply}, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


def _decoded(body: bytes) -> object:
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(400, "the body is not valid JSON") from None
    return value


def _user_message(messages: object) -> str:
    if not isinstance(messages, list) or not messages:
        raise RequestError(400, "messages must be a list with at least one message", param="messages")
    last = messages[-1]
    content = last.get("content") if isinstance(last, Mapping) and last.get("role") == "user" else None
    if not isinstance(content, str):
        raise RequestError(400, "the last message must be of the user, with a text", param="messages")
    return content


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body leave in one packet
    timeout = IDLE_CONNECTION_S

    def do_GET(self) -> None:
        if self.path == "/health":
            self._send(200, {"status": "ok"})
        elif self.path == "/v1/models":
            self._send(200, {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0}]})
        else:
            self._send_error_object(RequestError(404, f"no such path: {self.path[:100]}"))

    def do_POST(self) -> None:
        try:
            body = self._read_body()
            if self.path != "/v1/chat/completions":
                raise RequestError(404, f"no such path: {self.path[:100]}")
            self._send(200, complete(_decoded(body)))
        except RequestError as error:
            self._send_error_object(error)

    def _read_body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"[0-9]{1,9}", length) or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            raise RequestError(411, "send a Content-Length")
        left = int(length)
        if left <= MAX_REQUEST_BYTES:
            return self.rfile.read(left)
        # A client that is still sending would see a reset instead of the answer.
        while left and (chunk := self.rfile.read(min(left, 2**16))):
            left -= len(chunk)
        raise RequestError(413, f"the body is longer than {MAX_REQUEST_BYTES} bytes")

    def _send_error_object(self, error: RequestError) -> None:
        self._send(error.status, error.body)

    def _send(self, status: int, document: Mapping[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing a request holds goes to the log."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class EmbeddedTeacher:
    """The server as a child of the run. Started on entering the context, ended on leaving it.

    Raises ConfigError when the port is taken, TeacherUnavailable when the server does not start.
    """

    def __init__(self, *, port: int, log_file: Path) -> None:
        module = "prosetting.teachers.embedded_teacher"
        self._child = start_child([module, "--port", str(port)], log_file=log_file, pipes=True)
        try:
            self.endpoint = Endpoint(
                f"http://{HOST}:{self._wait_for_port(port, log_file)}/v1", "", MODEL, identity=MODEL
            )
        except BaseException:
            self.close()
            raise

    def _wait_for_port(self, port: int, log_file: Path) -> int:
        out = self._child.stdout
        assert out is not None
        line = out.readline() if select.select([out], [], [], START_DEADLINE_S)[0] else ""
        if line:
            return int(json.loads(line)["port"])
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(END_GRACE_S)
        if self._child.returncode == EXIT_USAGE:
            raise ConfigError(
                f"port {port} of {HOST} is taken or not allowed, the embedded teacher cannot listen there",
                next_step="set EMBEDDED_TEACHER_PORT=0 for any free port",
            )
        raise TeacherUnavailable(
            f"the embedded teacher did not start:\n{log_tail(log_file)}", next_step=f"look into {log_file}"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the server. Safe to call twice."""
        if self._child.returncode is None:
            end_child(self._child)
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                stream.close()


def main() -> None:
    end_with_the_run()
    parser = argparse.ArgumentParser(prog="prosetting.teachers.embedded_teacher")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 is any free one")
    port: int = parser.parse_args().port
    try:
        server = _Server((HOST, port), _Handler)
    except (OSError, OverflowError) as error:
        why = "is taken" if getattr(error, "errno", None) == errno.EADDRINUSE else f"cannot be used: {error}"
        print(f"port {port} of {HOST} {why}; set EMBEDDED_TEACHER_PORT=0 for any free one", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    print(json.dumps({"port": server.server_address[1]}), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
