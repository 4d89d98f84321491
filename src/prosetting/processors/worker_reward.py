"""The child process that runs a user's reward function: `python -m prosetting.processors.worker_reward SPEC`.

Its stdin is a socket that speaks JSON, one object a line. The first one comes from here:
`{"source": str}`, the file the function is in, or `{"error": str}`, and the process ends. Then each line
`{"question": str, "response": str, "reference": str | null}` is answered, in order, with
`{"verdict": "correct" | "incorrect" | "unknown", "detail": str, "failed": bool}`.
A call that needs too much CPU time or memory ends the process: the exit status says which. So does the end of
the socket. What the function prints goes to stdout and stderr, which carry no protocol.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import inspect
import json
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from prosetting.core.children import end_with_the_run

CPU_LIMIT_S = 10.0
MEMORY_LIMIT_BYTES = 2 << 30
"""Beyond what the import took, so that a large library at hand is not held against the function."""
OUT_OF_MEMORY = 77
MAX_DETAIL_CHARS = 200
_WORDS = ("correct", "incorrect", "unknown")

RewardFunction = Callable[[str, str, str | None], object]


class LoadError(Exception):
    """Why there is no function to call."""


def load(spec: str) -> tuple[RewardFunction, str]:
    """The function that `path/to/file.py:name` or `package.module:name` names, and its source file."""
    target, _, name = spec.rpartition(":")
    try:
        module = _import_file(Path(target)) if target.endswith(".py") else importlib.import_module(target)
    except BaseException as error:  # an import may raise anything, SystemExit included
        raise LoadError(f"its import fails: {_described(error)}{_where(error, target)}") from None
    function = getattr(module, name, None)
    if function is None:
        names = [key for key, value in vars(module).items() if callable(value)]
        near = difflib.get_close_matches(name, names, n=1)
        raise LoadError(f"there is no {name!r} in it" + (f"; did you mean {near[0]!r}?" if near else ""))
    if not callable(function):
        raise LoadError(f"{name!r} is a {type(function).__name__}, not a function")
    if inspect.iscoroutinefunction(function):
        raise LoadError(f"{name!r} is async; a plain function is needed")
    with contextlib.suppress(ValueError):  # some built-in functions tell no signature
        try:
            inspect.signature(function).bind("", "", None)
        except TypeError as error:
            raise LoadError(f"{name!r} cannot be called with (question, response, reference): {error}") from None
    return function, str(module.__file__)


def _import_file(path: Path) -> ModuleType:
    sys.path.append(str(path.parent))  # its neighbours can be imported, but stand in for no installed module
    name = f"_reward_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _where(error: BaseException, target: str) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == target]
    return f" (line {lines[-1]})" if lines else ""


def _described(error: BaseException) -> str:
    """Type and message, shortened: the message may quote the response."""
    try:
        message = " ".join(str(error).split())
    except Exception:
        message = ""
    name = type(error).__name__
    return (f"{name}: {message}" if message else name)[:MAX_DETAIL_CHARS]


def verdict_of(value: object) -> str:
    """The verdict that a return value stands for. Raises ValueError for one that stands for none."""
    if value is None:
        return "unknown"
    if isinstance(value, str) and value.strip().lower() in _WORDS:
        return value.strip().lower()
    if not isinstance(value, str | int | float) and hasattr(value, "item"):
        value = value.item()  # a scalar of numpy or torch
    if isinstance(value, int | float) and value in (0, 1):
        return "correct" if value else "incorrect"
    if isinstance(value, float):
        raise ValueError(
            f"the function returned {value!r}, and a verdict is binary: return True, False or None"
            " (for a score, compare it with a threshold of yours: return score >= 0.5)"
        )
    shown = repr(value)[:60] if isinstance(value, str | int) else f"a {type(value).__name__}"
    raise ValueError(f"the function returned {shown}: return True, False or None")


def judge(function: RewardFunction, request: dict[str, Any]) -> dict[str, object]:
    """One call; whatever it raises is an answer too."""
    try:
        value = function(request["question"], request["response"], request["reference"])
    except MemoryError:
        os._exit(OUT_OF_MEMORY)  # what is left of the process is not to be trusted
    except BaseException as error:
        return {"verdict": "unknown", "detail": f"the function raised {_described(error)}", "failed": True}
    try:
        return {"verdict": verdict_of(value), "detail": "", "failed": False}
    except Exception as error:
        return {"verdict": "unknown", "detail": str(error)[:MAX_DETAIL_CHARS], "failed": True}


def _limit_resources() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = mapped + MEMORY_LIMIT_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _open_channel() -> socket.socket:
    """The socket, moved away from stdin so that the function cannot read from it by mistake."""
    channel = socket.socket(fileno=os.dup(0))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    return channel


def main() -> None:
    """Answer until the socket closes."""
    end_with_the_run()
    channel = _open_channel()

    def send(content: dict[str, object]) -> None:
        channel.sendall(json.dumps(content).encode() + b"\n")

    try:
        function, source = load(sys.argv[1])
    except LoadError as error:
        return send({"error": str(error)})
    _limit_resources()
    send({"source": source})
    for line in channel.makefile("rb"):
        # CPU time of all threads together. SIGPROF's default action ends the process even inside one long C call.
        signal.setitimer(signal.ITIMER_PROF, CPU_LIMIT_S)
        answer = judge(function, json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        send(answer)


if __name__ == "__main__":
    main()
