"""A small OpenAI-compatible server on loopback: HTTP, the checks of a request, faults on order.

What a request is answered with is the business of whoever starts it (`Answer`).
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prosetting.core.server_faults import Fault, FaultDraw, spoil
from prosetting.errors import ConfigError

HOST = "127.0.0.1"
MAX_REQUEST_BYTES = 4 * 2**20
MAX_CHOICES = 1024
IDLE_CONNECTION_S = 300.0
_PIECE = b"x" * 2**16


class RequestError(Exception):
    """A request that is answered with an OpenAI error object."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


@dataclass(frozen=True, slots=True)
class Ask:
    """What a checked request asks for: `n` answers to the last user message. `judge_fault` is to be played."""

    user: str
    n: int
    seed: int | None
    judge_fault: str = ""


Answer = Callable[[Ask], list[str]]
"""The texts of the choices, `n` at most. Raises RequestError."""


def listen(port: int, model: str, answer: Answer, faults: FaultDraw, *, any_port: str) -> OpenAIServer:
    """A server that is bound and listens. Raises ConfigError; `any_port` is what to type for any free port."""
    try:
        return OpenAIServer(port, model, answer, faults)
    except (OSError, OverflowError) as error:
        why = "is taken" if getattr(error, "errno", None) == errno.EADDRINUSE else f"cannot be used: {error}"
        raise ConfigError(f"port {port} of {HOST} {why}", next_step=f"{any_port} for any free one") from None


class OpenAIServer(ThreadingHTTPServer):
    """A thread for each connection, so that one that hangs delays no other."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, port: int, model: str, answer: Answer, faults: FaultDraw) -> None:
        self.model, self.answer, self.faults = model, answer, faults
        super().__init__((HOST, port), _Handler)

    def serve(self) -> None:
        """Say where it listens, {"port": N}, and serve until the process is ended."""
        print(json.dumps({"port": self.server_address[1]}), flush=True)
        self.serve_forever()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)

    def complete(self, body: bytes, judge: Fault | None) -> dict[str, Any]:
        """The chat completion that answers a request body. Raises RequestError."""
        ask = _checked(_decoded(body), self.model, judge)
        texts = self.answer(ask)
        prompt_tokens, completion_tokens = _tokens(ask.user), sum(map(_tokens, texts))
        return {
            "id": f"chatcmpl-{hashlib.sha256(body).hexdigest()[:24]}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self.model,
            "choices": [
                {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
                for index, text in enumerate(texts)
            ],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
            },
        }


def _tokens(text: str) -> int:
    """About the tokens of a text; there is no tokenizer here."""
    return len(text) // 4 + 1


def _decoded(body: bytes) -> object:
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(400, "the body is not valid JSON") from None
    return value


def _checked(request: object, model: str, judge: Fault | None) -> Ask:
    if not isinstance(request, Mapping):
        raise RequestError(400, "the body must be a JSON object")
    if request.get("model") != model:
        raise RequestError(
            404, f"the model {request.get('model')!r} does not exist; use {model!r}", code="model_not_found"
        )
    if request.get("stream"):
        raise RequestError(400, "streaming is not supported", param="stream")
    n = 1 if request.get("n") is None else request["n"]
    if type(n) is not int or not 1 <= n <= MAX_CHOICES:
        raise RequestError(400, f"n must be a whole number from 1 to {MAX_CHOICES}", param="n")
    seed = request.get("seed")
    if seed is not None and type(seed) is not int:
        raise RequestError(400, "seed must be a whole number", param="seed")
    return Ask(_user_message(request.get("messages")), n, seed, judge.name if judge else "")


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
    server: OpenAIServer

    def do_GET(self) -> None:
        if self.path == "/health":
            self._send(200, {"status": "ok"})
        elif self.path == "/v1/models":
            self._send(200, {"object": "list", "data": [{"id": self.server.model, "object": "model", "created": 0}]})
        else:
            self._send_error_object(RequestError(404, f"no such path: {self.path[:100]}"))

    def do_POST(self) -> None:
        try:
            body = self._read_body()
            if self.path != "/v1/chat/completions":
                raise RequestError(404, f"no such path: {self.path[:100]}")
            fault, judge = self.server.faults.draw(body)
            if fault is None:
                self._send(200, self.server.complete(body, judge))
            elif fault.name.isdigit():
                self._send_status(fault)
            elif fault.name != "hang" or self._still_there_after(fault):
                self._send_spoilt(self.server.complete(body, judge), fault)
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

    def _send(self, status: int, document: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps(document).encode()
        self._send_head(status, len(body), headers={"Content-Type": "application/json", **(headers or {})})
        self.wfile.write(body)

    def _send_head(self, status: int, length: int, *, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def _send_status(self, fault: Fault) -> None:
        wait = formatdate(time.time() + 2, usegmt=True) if fault.parameter == "date" else f"{fault.number:g}"
        headers = {} if fault.parameter is None else {"Retry-After": wait}
        error = RequestError(int(fault.name), f"{fault.name} on order", code="fault")
        self._send(error.status, error.body, headers)

    def _still_there_after(self, fault: Fault) -> bool:
        """Wait as long as the fault says, or for ever; whether the client still waits then."""
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        if poll.poll(None if fault.parameter is None else fault.number * 1000):
            self.close_connection = True
            return False
        return True

    def _send_spoilt(self, completion: dict[str, Any], fault: Fault) -> None:
        kind = {"Content-Type": "text/html" if fault.name == "html" else "application/json"}
        if fault.name == "huge":
            length, pieces = _huge(completion, round(fault.number * 2**20))
            self._send_head(200, length, headers=kind)
            self._send_pieces(pieces, pause_s=0.0)
            return
        body = spoil(completion, fault)
        self._send_head(200, len(body), headers=kind)
        if fault.name == "reset":
            self.wfile.write(body[: len(body) // 2])
            self._reset()
        elif fault.name == "drip":
            self._send_pieces((body[at : at + 1] for at in range(len(body))), pause_s=fault.number)
        else:
            self.wfile.write(body)

    def _send_pieces(self, pieces: Iterable[bytes], *, pause_s: float) -> None:
        for piece in pieces:
            self.wfile.write(piece)
            self.wfile.flush()
            time.sleep(pause_s)

    def _reset(self) -> None:
        """End the connection with RST: close it with a linger time of zero."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for stream in (self.wfile, self.rfile, self.connection):
            stream.close()
        raise ConnectionResetError("on order")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing a request holds goes to the log."""


def _huge(completion: dict[str, Any], size: int) -> tuple[int, Iterator[bytes]]:
    """A valid completion whose text has `size` characters more: its length in bytes, and its pieces."""
    mark = "\x00"
    choice = completion["choices"][0]
    long = choice | {"message": choice["message"] | {"content": mark}}
    head, _, tail = json.dumps(completion | {"choices": [long]}).encode().partition(json.dumps(mark)[1:-1].encode())

    def pieces() -> Iterator[bytes]:
        yield head
        for start in range(0, size, len(_PIECE)):
            yield _PIECE[: size - start]
        yield tail

    return len(head) + size + len(tail), pieces()
