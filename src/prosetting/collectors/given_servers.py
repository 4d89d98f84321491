"""The servers of SOLVER_BASE_URLS: others start and end them, and a command of the user's gives them new weights."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from prosetting.collectors.server_fleet import PROBE_S
from prosetting.config import Settings
from prosetting.core import children
from prosetting.core.orphans import MARK
from prosetting.errors import ConfigError, SolverError, TeacherReplyError, TeacherUnavailable
from prosetting.teachers.endpoint import SOLVER, Endpoint
from prosetting.teachers.http_client import EndpointClient
from prosetting.teachers.http_failures import NothingThere, PassingFailure, proxy_hint
from prosetting.teachers.replies import read_models

PATIENCE_S = 60.0
POLL_S = 0.5
CHECK = "check that it runs and that SOLVER_BASE_URLS is right, then run the same command again: it goes on from there"
NEW_WEIGHTS = "; after a training the servers need the new checkpoint, which SOLVER_RELOAD_COMMAND gives them"
log = logging.getLogger("prosetting")

Holds = Literal["yes", "no", "unknown"]


class GivenServers:
    """Implements `Servers`. The model asked for is SOLVER_MODEL_NAME, else `model_path`, the current checkpoint's.

    An entry `@FILE` of SOLVER_BASE_URLS stands for the addresses in that file, one a line; it is read again as it
    changes, so that servers can be added and taken away while a run goes on.
    """

    def __init__(
        self, settings: Settings, model_path: str, *, log_file: Path = Path(os.devnull), patience_s: float = PATIENCE_S
    ) -> None:
        self._settings = settings
        self._model_path = model_path
        self._log_file = log_file
        self._endpoints = read_endpoints(settings, model_path)
        self._files = _files_of(settings)
        self._read_at = _times(self._files)
        self.patience_s = patience_s
        self.advice = CHECK if model_path == settings.solver_model_path else CHECK + NEW_WEIGHTS

    def open(self, ended: threading.Event) -> None:
        """Run SOLVER_RELOAD_COMMAND where the servers do not all say that they hold the checkpoint, and wait until none
        says otherwise."""
        if not self._settings.solver_reload_command or set(self._holdings()) == {"yes"}:
            return
        self._reload(ended)
        until = time.monotonic() + self._settings.solver_start_timeout
        while not ended.is_set() and set(self._holdings()) & {"no"}:
            if time.monotonic() > until:
                raise SolverError(
                    f"after SOLVER_RELOAD_COMMAND the Solver's servers still do not serve {self._model_path}",
                    next_step="see what the command does with {model} in it, then run the same command again",
                )
            ended.wait(POLL_S)

    def endpoints(self) -> Sequence[Endpoint]:
        if self._files and (times := _times(self._files)) != self._read_at:
            self._read_at = times
            try:
                self._endpoints = read_endpoints(self._settings, self._model_path)
            except ConfigError as error:
                log.warning("the Solver's servers stay as they were: %s", error.what)
        return self._endpoints

    def gone(self, endpoint: Endpoint) -> None:
        """Whoever started it may replace it."""

    def close(self) -> None:
        """Nothing was started here."""

    def _holdings(self) -> list[Holds]:
        async def ask() -> list[Holds]:
            return await asyncio.gather(*(_holds(endpoint, self._model_path) for endpoint in self.endpoints()))

        with asyncio.Runner() as runner:
            return runner.run(ask())

    def _reload(self, ended: threading.Event) -> None:
        command = [part.replace("{model}", self._model_path) for part in _reload_command(self._settings)]
        log.info("SOLVER_RELOAD_COMMAND is run for %s", self._model_path)  # not shown: it may hold a key
        deadline_s, log_file = self._settings.solver_start_timeout, self._log_file
        try:
            with log_file.open("a") as messages:
                running = subprocess.Popen(
                    command,
                    env={name: value for name, value in os.environ.items() if name not in (MARK, children.RUN_PID)},
                    stdin=subprocess.DEVNULL,
                    stdout=messages,
                    stderr=messages,
                    start_new_session=True,  # the servers that it may start are not the run's
                )
        except OSError as error:
            raise self._not_reloaded(f"cannot be started ({error.strerror}: {command[0]})") from None
        until = time.monotonic() + deadline_s
        while (status := running.poll()) is None and not ended.is_set():
            if time.monotonic() > until:
                running.kill()
                raise self._not_reloaded(f"has not ended within {deadline_s:g} s (SOLVER_START_TIMEOUT)")
            ended.wait(POLL_S)
        if status:
            raise self._not_reloaded(f"failed with exit status {status}")

    def _not_reloaded(self, how: str) -> SolverError:
        return SolverError(
            f"SOLVER_RELOAD_COMMAND {how}. Its last messages:\n{children.log_tail(self._log_file)}",
            next_step="mend it, then run the same command again: it goes on from there",
        )


def check_servers(settings: Settings) -> None:
    """Check that every server of SOLVER_BASE_URLS answers and has the model, and that a run that trains can give them
    new weights. Raises SolverError, or ConfigError. A server without a list of models passes: the first request will
    tell."""
    trains = settings.first_training_round <= settings.total_rounds
    if trains and settings.solver_model_name and not settings.solver_reload_command:
        raise ConfigError(
            f"the run trains from round {settings.first_training_round} on, but the servers of SOLVER_BASE_URLS would"
            f" go on with the weights that they call {settings.solver_model_name!r}",
            next_step="set SOLVER_RELOAD_COMMAND to a command that makes them serve {model}, or SOLVER_ENGINE=vllm with"
            " no SOLVER_BASE_URLS, or only gather data: FIRST_TRAINING_ROUND above TOTAL_ROUNDS",
        )
    if settings.solver_reload_command and shutil.which(_reload_command(settings)[0]) is None:
        raise ConfigError(
            f"SOLVER_RELOAD_COMMAND begins with {_reload_command(settings)[0]!r}, and there is no such program",
            next_step="write a program and its arguments, without a shell: bash reload.sh {model}",
        )
    with asyncio.Runner() as runner:
        for endpoint in read_endpoints(settings, settings.solver_model_path):
            runner.run(_probe(endpoint))


def _reload_command(settings: Settings) -> list[str]:
    try:
        return shlex.split(settings.solver_reload_command)
    except ValueError as error:
        raise ConfigError(
            f"SOLVER_RELOAD_COMMAND does not read: {error}",
            next_step="write it as in a shell, such as SOLVER_RELOAD_COMMAND=bash reload.sh {model}",
        ) from None


async def _probe(endpoint: Endpoint) -> None:
    title = f"the {endpoint.role.title} at {endpoint.base_url}"
    try:
        names = await _models(endpoint)
    except NothingThere:
        return
    except TeacherUnavailable as failure:
        raise SolverError(failure.what, next_step=failure.next_step) from None
    except PassingFailure as failure:
        raise SolverError(f"{title} {failure}", next_step=CHECK + proxy_hint(endpoint)) from None
    except TeacherReplyError as failure:
        raise SolverError(f"{title} does not speak the OpenAI API: {failure}", next_step=CHECK) from None
    if names and endpoint.model not in names:
        what = f"{title} has no model {endpoint.model!r}; it has {', '.join(sorted(names)[:5])}"
        raise SolverError(what, next_step="set SOLVER_MODEL_NAME to one of these")


async def _holds(endpoint: Endpoint, model_path: str) -> Holds:
    """Whether a server says that it holds these weights: by the model's name where that is the path, else by the
    `root` that vLLM gives with it."""
    try:
        roots = await _models(endpoint)
    except NothingThere:
        return "unknown"
    except (TeacherUnavailable, TeacherReplyError, PassingFailure):
        return "no"
    if endpoint.model == model_path:
        return "yes" if model_path in roots else "no"
    root = roots.get(endpoint.model, "")
    return "unknown" if root in ("", endpoint.model) else "yes" if root == model_path else "no"


async def _models(endpoint: Endpoint) -> dict[str, str]:
    """The names of a server's models, each with where its weights are (`root`), empty where that is not told."""
    client = EndpointClient(endpoint, connections=1, timeout_s=3 * PROBE_S)
    try:
        return read_models(await client.send("/models", None))
    finally:
        await client.close()


def read_endpoints(settings: Settings, model_path: str) -> list[Endpoint]:
    """The servers of SOLVER_BASE_URLS, those in its files included. Raises ConfigError."""
    key, model = settings.solver_api_key.get_secret_value(), settings.solver_model_name or model_path
    proxies = settings.http_use_env_proxies
    urls: list[str] = [url for url in settings.solver_base_urls if not url.startswith("@")]
    for file in _files_of(settings):
        urls += _addresses_in(file)
    if not urls:
        raise ConfigError("SOLVER_BASE_URLS names no server", next_step="write one address a line into its file")
    return [Endpoint(url, key, model, role=SOLVER, use_env_proxies=proxies) for url in dict.fromkeys(urls)]


def _files_of(settings: Settings) -> list[Path]:
    return [Path(entry[1:]).expanduser() for entry in settings.solver_base_urls if entry.startswith("@")]


def _addresses_in(file: Path) -> Iterable[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"SOLVER_BASE_URLS=@{file} cannot be read: {getattr(error, 'strerror', None) or error}",
            next_step="write one address a line into that file, such as http://host:8000/v1",
        ) from None
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def _times(files: Sequence[Path]) -> list[int]:
    return [file.stat().st_mtime_ns if file.exists() else 0 for file in files]
