"""A real server on loopback that misbehaves as servers do, for the tests of the teacher client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from prosetting.records import Question, QuestionId, Verdict
from prosetting.teachers.base import GradeReply

Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]
"""What is sent, or who sends it."""

QUESTION = Question(QuestionId("q"), "What is 2 + 3?", reference="5")
CORRECT = {"final_answer": "5", "diagnosis": "", "verdict": "correct"}
RIGHT = GradeReply(Verdict.CORRECT, "5", "")


def http_answer(status: int, body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def says(reply: object, **choice: object) -> bytes:
    """A good chat completion with this reply."""
    text = reply if isinstance(reply, str) else json.dumps(reply)
    choices = [{"message": {"content": text}, "finish_reason": "stop"} | choice]
    usage = {"prompt_tokens": 11, "completion_tokens": 7}
    return http_answer(200, json.dumps({"choices": choices, "usage": usage}).encode())


def error(status: int, message: str, *headers: str, **fields: object) -> bytes:
    return http_answer(status, json.dumps({"error": {"message": message, **fields}}).encode(), *headers)


GOOD = says(CORRECT)
HTML = http_answer(200, b"<html>Please log in</html>", "Content-Type: text/html")


async def hang(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


async def drip(writer: asyncio.StreamWriter) -> None:
    for byte in GOOD:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.02)


async def reset(writer: asyncio.StreamWriter) -> None:
    """A TCP reset in the middle of the body."""
    writer.write(GOOD[:-20])
    await writer.drain()
    await asyncio.sleep(0.02)
    linger_not = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not)
    writer.transport.abort()


async def flood(writer: asyncio.StreamWriter) -> None:
    """100 MB."""
    writer.write(http_answer(200, b"", length=100 * 2**20))
    for _ in range(100):
        writer.write(b" " * 2**20)
        await writer.drain()


@dataclass
class Peer:
    """Answers the n-th request with the n-th of `answers`, the last one for ever."""

    answers: Sequence[Answer]
    delay_s: float = 0.0
    base_url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    """Of each request, its first line and headers in lower case."""
    in_flight: int = 0
    most_in_flight: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self._serve(reader, writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length:")[2].split()[0]) if "content-length:" in head else 0
        self.heads.append(head)
        self.requests.append(json.loads(await reader.readexactly(length) or b"{}"))
        answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(self.delay_s)
        self.in_flight -= 1
        if isinstance(answer, bytes):
            writer.write(answer)
        else:
            await answer(writer)
        await writer.drain()


@contextlib.asynccontextmanager
async def peer(*answers: Answer, delay_s: float = 0.0, port: int = 0) -> AsyncIterator[Peer]:
    here = Peer(answers, delay_s)
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(here.serve(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", port, backlog=1024)
    here.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield here
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 60))
