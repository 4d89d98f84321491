"""Teacher1 and Teacher2 as the settings name them: checked before anything is spent or written, then opened."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from prosetting.config import Settings
from prosetting.errors import ConfigError
from prosetting.teachers.embedded_teacher import EmbeddedTeacher
from prosetting.teachers.endpoint import Endpoint
from prosetting.teachers.http_teacher import CallLedger, HttpTeacher


def check_teachers(settings: Settings, runner: asyncio.Runner) -> None:
    """Raises TeacherUnavailable when a named endpoint does not answer or does not know its model, ConfigError
    when the embedded teacher's port is taken. Writes nothing."""
    first = None if settings.teacher_base_url else _embedded_stand_in(settings)
    for endpoint in dict.fromkeys(_endpoints(settings, first)):
        if endpoint != first:
            runner.run(_probe(_client(settings, endpoint, None)))


@contextmanager
def open_teachers(
    settings: Settings, runner: asyncio.Runner, *, log_file: Path, ledger: CallLedger | None
) -> Iterator[tuple[HttpTeacher, HttpTeacher]]:
    """Both teachers, on the runner's event loop. Without TEACHER_BASE_URL the embedded one is started and ended."""
    with ExitStack() as stack:
        first = None
        if not settings.teacher_base_url:
            embedded = EmbeddedTeacher(port=settings.embedded_teacher_port, log_file=log_file)
            first = stack.enter_context(embedded).endpoint
        teachers = [_client(settings, endpoint, ledger) for endpoint in _endpoints(settings, first)]
        for teacher in teachers:
            stack.callback(_close, runner, teacher)
        yield teachers[0], teachers[1]


def _endpoints(settings: Settings, embedded: Endpoint | None) -> tuple[Endpoint, Endpoint]:
    """Teacher1's and Teacher2's; what is not said of Teacher2 is as for Teacher1."""
    first = embedded or Endpoint(
        settings.teacher_base_url or "", settings.teacher_api_key.get_secret_value(), settings.teacher_model_name
    )
    second = Endpoint(
        settings.teacher2_base_url or first.base_url,
        settings.teacher2_api_key.get_secret_value() or first.api_key,
        settings.teacher2_model_name or first.model,
        "" if settings.teacher2_base_url else first.identity,
    )
    return first, second


def _embedded_stand_in(settings: Settings) -> Endpoint:
    """Checks that the embedded teacher's port is free, and stands for it until it is started."""
    port = settings.embedded_teacher_port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(
                f"EMBEDDED_TEACHER_PORT={port} is taken by another program ({error.strerror})",
                next_step="set EMBEDDED_TEACHER_PORT=0 to take any free port",
            ) from error
    return Endpoint(f"http://127.0.0.1:{port or 1}/v1", "", settings.teacher_model_name)


def _client(settings: Settings, endpoint: Endpoint, ledger: CallLedger | None) -> HttpTeacher:
    return HttpTeacher(
        endpoint,
        concurrent_workers=settings.teacher_concurrent_workers,
        timeout_s=settings.teacher_timeout,
        max_retries=settings.teacher_max_retries,
        retry_delay_s=settings.teacher_retry_delay,
        ledger=ledger,
    )


async def _probe(teacher: HttpTeacher) -> None:
    try:
        await teacher.probe()
    finally:
        await teacher.close()


def _close(runner: asyncio.Runner, teacher: HttpTeacher) -> None:
    runner.run(teacher.close())
