"""Who decides between rounds: nobody (automatic mode) or a person (semi-automatic mode).

The two modes of the original differ in this one object; the loop is the same.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol, TextIO

from prosetting.config import Settings
from prosetting.core import stopping
from prosetting.errors import ProSettingError, RunStopped, TrainingError

log = logging.getLogger("prosetting")


class AfterFailure(Enum):
    """What to do with a round that failed. Everything it had committed stays."""

    RETRY = auto()
    SKIP_TRAINING = auto()
    STOP = auto()


class Gate(Protocol):
    """Asked before each round and after each failure."""

    def before_round(self, round_: int, status: Callable[[], str]) -> None:
        """Returns to go on; raises RunStopped to leave."""
        ...

    def after_failure(self, round_: int, error: ProSettingError, failures: int) -> AfterFailure:
        """`failures` counts this round's failures so far, this one included."""
        ...


class AutomaticGate:
    """Goes on by itself and retries as AUTO_* says."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def before_round(self, round_: int, status: Callable[[], str]) -> None:
        return None

    def after_failure(self, round_: int, error: ProSettingError, failures: int) -> AfterFailure:
        settings = self._settings
        if settings.auto_retry_enabled and failures <= settings.auto_max_retries:
            log.warning(
                "round %d failed (%s); try %d of %d in %.0f s",
                round_,
                error.what.splitlines()[0],
                failures + 1,
                settings.auto_max_retries + 1,
                settings.auto_retry_delay,
            )
            with stopping.at_once():
                time.sleep(settings.auto_retry_delay)
            return AfterFailure.RETRY
        if settings.auto_continue_on_failure and isinstance(error, TrainingError):
            return AfterFailure.SKIP_TRAINING
        return AfterFailure.STOP


class AskingGate:
    """Asks a person: c continue, s status, q quit, and r retry after a failure. End of input quits."""

    def __init__(self, input_stream: TextIO | None = None, output_stream: TextIO | None = None) -> None:
        self._input = input_stream or sys.stdin
        self._output = output_stream or sys.stdout

    def before_round(self, round_: int, status: Callable[[], str]) -> None:
        self._say(f"\nPreparing to execute Round {round_} training\n")
        while (answer := self._ask("Please select operation [c]continue [s]status [q]quit: ", "csq")) == "s":
            self._say(status() + "\n")
        if answer == "q":
            raise RunStopped(f"stopped before round {round_}", next_step="the same command goes on from here")

    def after_failure(self, round_: int, error: ProSettingError, failures: int) -> AfterFailure:
        self._say(f"\nRound {round_} failed: {error}\n")
        training = isinstance(error, TrainingError)
        choices = "[r]retry [c]continue without training [q]quit: " if training else "[r]retry [q]quit: "
        answer = self._ask(f"Please select operation {choices}", "rcq" if training else "rq")
        return {"r": AfterFailure.RETRY, "c": AfterFailure.SKIP_TRAINING, "q": AfterFailure.STOP}[answer]

    def _ask(self, prompt: str, accepted: str) -> str:
        while True:
            self._say(prompt)
            with stopping.at_once():
                line = self._input.readline()
            if not line:
                return "q"
            if (answer := line.strip().lower()[:1]) and answer in accepted:
                return answer
            self._say(f"Please type one of: {', '.join(accepted)}\n")

    def _say(self, text: str) -> None:
        self._output.write(text)
        self._output.flush()
