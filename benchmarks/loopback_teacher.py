"""A teacher for measurements: a real HTTP server in a process of its own that answers after a fixed latency.

    python benchmarks/loopback_teacher.py 0.1       prints {"port": N} once it listens

Each grade request is answered with the attempt itself as its final answer, so that a client can tell whether it
got the reply to its own request. When its standard input ends it prints {"requests": N, "cpu_s": S} and leaves.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from collections.abc import Mapping
from typing import Any


def completion(request: Mapping[str, Any]) -> bytes:
    """The HTTP answer to a grade request of contract prosetting-teacher/2."""
    attempt = json.loads(request["messages"][-1]["content"])["attempt"]
    reply = json.dumps({"final_answer": attempt, "diagnosis": "", "verdict": "correct"})
    message = {"role": "assistant", "content": reply}
    body = json.dumps(
        {
            "id": "chatcmpl-0",
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 400, "completion_tokens": 20, "total_tokens": 420},
        }
    ).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Connection(asyncio.Protocol):
    """One keep-alive connection: POST with a Content-Length in, one completion out, `latency_s` later."""

    requests = 0
    latency_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or b"0")
        if end and len(body) >= length:
            self._received = body[length:]
            Connection.requests += 1
            loop = asyncio.get_running_loop()
            loop.call_later(self.latency_s, self._answer, completion(json.loads(body[:length])))

    def _answer(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


async def main() -> None:
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    Connection.latency_s = float(sys.argv[1])
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=4096)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"requests": Connection.requests, "cpu_s": used.ru_utime + used.ru_stime}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
