"""One copy of the Solver, as a Ray actor: the local sampler's own loop in a thread, asked from the cluster.

Imports no torch before it is made: the driver knows this class too.
"""

from __future__ import annotations

import asyncio
import threading
import traceback
from typing import Any

from prosetting.collectors.sampler_protocol import Requests, in_a_line

Message = dict[str, Any]


class SamplingFailed(Exception):
    """The sampler's last word."""


class Replica:
    """Loads the checkpoint while it can be asked already. `draw` may be called many times at once: all attempts share
    the decoder's slots."""

    def __init__(self, model: str, slots: int, trust_remote_code: bool) -> None:
        self._requests = Requests()
        self._call = 0
        self._drawn: dict[int, asyncio.Future[Message]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loaded = threading.Event()
        self._facts: Message = {}
        self._failure = ""
        threading.Thread(target=self._work, args=(model, slots, trust_remote_code), daemon=True).start()

    def _work(self, model: str, slots: int, trust_remote_code: bool) -> None:
        try:
            from prosetting.collectors.worker_sampler import Sampler, serve

            sampler = Sampler(model, slots, trust_remote_code=trust_remote_code)
            self._facts = sampler.facts()
            self._loaded.set()
            serve(sampler, self._requests, self._tell)
        except BaseException as error:
            traceback.print_exc()
            self._failure = in_a_line(error) if self._facts else f"it cannot be loaded ({in_a_line(error)})"
            self._loaded.set()
            self._tell({"rows": []})

    async def placed(self) -> None:
        """Returns once a node holds this actor."""

    async def facts(self) -> Message:
        """What was loaded, once it is. Raises SamplingFailed."""
        await asyncio.get_running_loop().run_in_executor(None, self._loaded.wait)
        if self._failure:
            raise SamplingFailed(self._failure)
        return self._facts

    async def draw(self, call: int, params: Message, requests: list[Message]) -> list[Message]:
        """The rows of `requests`. A later `call` breaks off the earlier ones, whose rows nobody waits for."""
        self._loop = asyncio.get_running_loop()
        if call > self._call:
            self._call = call
            for nobodys in self._drawn.values():
                nobodys.cancel()
            self._drawn.clear()
            self._requests.put({"params": params})
        drawn = [self._drawn.setdefault(each["key"], self._loop.create_future()) for each in requests]
        for each in requests:
            self._requests.put(each)
        self._arrived([])
        return list(await asyncio.gather(*drawn))

    def _tell(self, message: Message) -> None:
        """Called by the sampler's thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._arrived, message["rows"])

    def _arrived(self, rows: list[Message]) -> None:
        for row in rows:
            if (waiting := self._drawn.pop(row["key"], None)) and not waiting.done():
                waiting.set_result(row)
        if self._failure:
            for waiting in self._drawn.values():
                waiting.set_exception(SamplingFailed(self._failure))
            self._drawn.clear()
