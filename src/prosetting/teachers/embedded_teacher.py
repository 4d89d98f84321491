"""The offline teacher: a real OpenAI-compatible server on loopback, and the run's handle on it.

    python -m prosetting.teachers.embedded_teacher --port 0      prints {"port": N} once it listens

What it answers is worked out in `offline_tasks`, HTTP is `core.openai_server`'s. Any OpenAI client can talk to it.
With `--fault` it misbehaves on order.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import select
import subprocess
import sys
from pathlib import Path
from typing import Self

from prosetting.core.children import END_GRACE_S, end_child, end_with_the_run, log_tail, start_child
from prosetting.core.crash_points import reached
from prosetting.core.openai_server import HOST, Ask, RequestError, listen
from prosetting.core.server_faults import FaultDraw, fault_help, parse_faults
from prosetting.errors import EXIT_USAGE, ConfigError, TeacherUnavailable
from prosetting.records import Verdict
from prosetting.teachers.endpoint import Endpoint
from prosetting.teachers.offline_tasks import BadRequest, reply_to
from prosetting.teachers.prompts import Task

MODEL = "prosetting-embedded"
START_DEADLINE_S = 60.0


def answer(ask: Ask) -> list[str]:
    """The reply to one document of the contract, with the judge's fault that is ordered. Raises RequestError."""
    if ask.n != 1:
        raise RequestError(400, "only n=1 is supported", param="n")
    try:
        document = json.loads(ask.user)
        reply = reply_to(document)
    except BadRequest as error:
        raise RequestError(400, str(error), param="messages") from None
    except (ValueError, RecursionError):
        message = "the user message must be one JSON document (docs/teacher.md)"
        raise RequestError(400, message, param="messages") from None
    reached("teacher:answered", hashlib.sha256(f"{ask.seed} {ask.user}".encode()).hexdigest()[:16])
    if document["task"] == Task.GRADE:
        reply |= _misjudged(Verdict(reply["verdict"]), ask.judge_fault)
    return [json.dumps(reply, ensure_ascii=False)]


def _misjudged(verdict: Verdict, fault: str) -> dict[str, str]:
    """What a broken judge says instead: no diagnosis, and the verdict of its fault."""
    opposite = {Verdict.CORRECT: Verdict.INCORRECT, Verdict.INCORRECT: Verdict.CORRECT}
    said = {"wrong": opposite.get(verdict), "yes": Verdict.CORRECT, "unknown": Verdict.UNKNOWN}.get(fault)
    return {} if said is None else {"verdict": said.value, "diagnosis": ""}


class EmbeddedTeacher:
    """The server as a child of the run. Started on entering the context, ended on leaving it.

    `faults` is what it does wrong on order (`core.server_faults`). Raises ConfigError for faults that do not read
    and a port that is taken, TeacherUnavailable when the server does not start.
    """

    def __init__(self, *, port: int, log_file: Path, faults: str = "") -> None:
        check_faults(faults)
        command = ["prosetting.teachers.embedded_teacher", "--port", str(port), "--fault", faults]
        self._child = start_child(command, log_file=log_file, pipes=True)
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


def check_faults(faults: str) -> None:
    """Raises ConfigError unless EMBEDDED_TEACHER_FAULTS reads."""
    try:
        parse_faults(faults)
    except ConfigError as error:
        raise ConfigError(f"EMBEDDED_TEACHER_FAULTS: {error.what}", next_step=error.next_step) from None


def main() -> None:
    end_with_the_run()
    parser = argparse.ArgumentParser(
        prog="python -m prosetting.teachers.embedded_teacher",
        description="The offline teacher: an OpenAI-compatible server on loopback.",
        epilog=f"faults:\n{fault_help()}\n\nexample:\n  %(prog)s --port 8001 --fault 429@0.1,hang@0.02,truncate@0.05",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 is any free one")
    parser.add_argument("--fault", default="", metavar="NAME[:PARAMETER]@PROBABILITY,…", help="misbehave on order")
    parser.add_argument("--fault-seed", type=int, default=0, help="another seed draws other faults")
    given = parser.parse_args()
    try:
        faults = FaultDraw(parse_faults(given.fault), given.fault_seed)
        server = listen(given.port, MODEL, answer, faults, any_port="set EMBEDDED_TEACHER_PORT=0")
    except ConfigError as error:
        print(f"{error.what}; {error.next_step}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    server.serve()


if __name__ == "__main__":
    main()
