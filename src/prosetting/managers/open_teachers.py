"""Teacher1 and Teacher2 as the settings name them: checked before anything is spent or written, then opened."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from prosetting.config import Settings
from prosetting.core.group_commit import GroupCommit
from prosetting.errors import ConfigError, ProSettingError
from prosetting.teachers.budget import Budget, Prices
from prosetting.teachers.call_ledger import CallLedger, JournalLedger
from prosetting.teachers.embedded_teacher import EmbeddedTeacher, check_faults
from prosetting.teachers.endpoint import Endpoint
from prosetting.teachers.http_teacher import HttpTeacher


def check_teachers(settings: Settings, runner: asyncio.Runner) -> None:
    """Raises TeacherUnavailable when a named endpoint does not answer or does not know its model, ConfigError
    when the embedded teacher's port is taken. Writes nothing."""
    check_faults(settings.embedded_teacher_faults)
    first = None if settings.teacher_base_url else _embedded_stand_in(settings)
    for endpoint in dict.fromkeys(_endpoints(settings, first)):
        if endpoint != first:
            runner.run(_probe(_client(settings, endpoint)))


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether one teacher answers, and how fast. `error` is None when it does; `embedded`: nobody need be asked."""

    teacher: str
    where: str
    model: str
    embedded: bool
    seconds: float
    error: ProSettingError | None


def probe_teachers(settings: Settings, runner: asyncio.Runner) -> Iterator[Probe]:
    """Asks each teacher's endpoint for its models, which costs nothing; one after the other."""
    first = None if settings.teacher_base_url else _embedded_stand_in(settings)
    for name, endpoint in zip(("Teacher1", "Teacher2"), _endpoints(settings, first), strict=True):
        began, error = time.monotonic(), None
        embedded = first is not None and endpoint.base_url == first.base_url
        if not embedded:
            try:
                runner.run(_probe(_client(settings, endpoint)))
            except ProSettingError as found:
                error = found
        yield Probe(name, endpoint.base_url, endpoint.model, embedded, time.monotonic() - began, error)


@contextmanager
def open_teachers(
    settings: Settings, runner: asyncio.Runner, *, log_file: Path, commits: GroupCommit | None
) -> Iterator[tuple[HttpTeacher, HttpTeacher]]:
    """Both teachers, on the runner's event loop, with one budget. Without TEACHER_BASE_URL the embedded one is
    started and ended. `commits` writes the journal in which calls are kept; None keeps none."""
    with ExitStack() as stack:
        first = None
        if not settings.teacher_base_url:
            faults = settings.embedded_teacher_faults
            embedded = EmbeddedTeacher(port=settings.embedded_teacher_port, log_file=log_file, faults=faults)
            first = stack.enter_context(embedded).endpoint
        if commits is not None:
            stack.callback(commits.flush)
        ledger = JournalLedger(commits) if commits is not None else None
        budget = Budget(
            max_tokens=settings.teacher_max_tokens_total,
            max_cost=settings.teacher_max_cost,
            spent=commits.journal.teacher_totals() if commits is not None else None,
        )
        teachers = [
            _client(settings, endpoint, ledger, budget, prices)
            for endpoint, prices in zip(_endpoints(settings, first), _prices(settings), strict=True)
        ]
        for teacher in teachers:
            stack.callback(_close, runner, teacher)
        yield teachers[0], teachers[1]


def _prices(settings: Settings) -> tuple[Prices | None, Prices | None]:
    """Teacher1's and Teacher2's; what is not said of Teacher2 is as for Teacher1."""
    prompt, completion = settings.teacher_price_prompt, settings.teacher_price_completion
    prompt2, completion2 = settings.teacher2_price_prompt, settings.teacher2_price_completion
    return _price(prompt, completion), _price(
        prompt if prompt2 is None else prompt2, completion if completion2 is None else completion2
    )


def _price(prompt: float | None, completion: float | None) -> Prices | None:
    return None if prompt is None and completion is None else Prices(prompt or 0.0, completion or 0.0)


def _endpoints(settings: Settings, embedded: Endpoint | None) -> tuple[Endpoint, Endpoint]:
    """Teacher1's and Teacher2's; what is not said of Teacher2 is as for Teacher1."""
    first = embedded or Endpoint(
        settings.teacher_base_url or "",
        settings.teacher_api_key.get_secret_value(),
        settings.teacher_model_name,
        use_env_proxies=settings.http_use_env_proxies,
    )
    second = Endpoint(
        settings.teacher2_base_url or first.base_url,
        settings.teacher2_api_key.get_secret_value() or first.api_key,
        settings.teacher2_model_name or first.model,
        "" if settings.teacher2_base_url else first.identity,
        use_env_proxies=settings.http_use_env_proxies,
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


def _client(
    settings: Settings,
    endpoint: Endpoint,
    ledger: CallLedger | None = None,
    budget: Budget | None = None,
    prices: Prices | None = None,
) -> HttpTeacher:
    return HttpTeacher(
        endpoint,
        concurrent_workers=settings.teacher_concurrent_workers,
        timeout_s=settings.teacher_timeout,
        max_retries=settings.teacher_max_retries,
        retry_delay_s=settings.teacher_retry_delay,
        ledger=ledger,
        budget=budget,
        prices=prices,
    )


async def _probe(teacher: HttpTeacher) -> None:
    try:
        await teacher.probe()
    finally:
        await teacher.close()


def _close(runner: asyncio.Runner, teacher: HttpTeacher) -> None:
    runner.run(teacher.close())
