"""Who decides between rounds: nobody (automatic mode) or a person (semi-automatic mode).

The two modes of the original differ in this one object; the loop is the same.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol, TextIO

from prosetting.config import Settings
from prosetting.core import pausing, stopping
from prosetting.core.control import Control, Wish
from prosetting.core.terminal import Typed
from prosetting.core.text import printable
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
    """Asks a person: c continue, s status, q quit, and r retry after a failure. End of input quits.

    `prosetting ctl` answers too: resume goes on (or tries again), stop quits.
    """

    def __init__(
        self,
        control: Control | None = None,
        input_stream: TextIO | None = None,
        output_stream: TextIO | None = None,
    ) -> None:
        self._control = control
        self._typed = Typed(input_stream or sys.stdin)
        self._output = output_stream or sys.stdout

    def before_round(self, round_: int, status: Callable[[], str]) -> None:
        self._say(f"\nPreparing to execute Round {round_} training\n")
        prompt = "Please select operation [c]continue [s]status [q]quit: "
        while (answer := self._ask(f"before round {round_}", prompt, "csq", go_on="c")) == "s":
            self._say(status() + "\n")
        if answer == "q":
            raise RunStopped(f"stopped before round {round_}", next_step="the same command goes on from here")
        pausing.go_on()  # whoever paused the run meanwhile: this person wants it to go on

    def after_failure(self, round_: int, error: ProSettingError, failures: int) -> AfterFailure:
        self._say(f"\nRound {round_} failed: {printable(str(error))}\n")
        training = isinstance(error, TrainingError)
        choices = "[r]retry [c]continue without training [q]quit: " if training else "[r]retry [q]quit: "
        accepted = "rcq" if training else "rq"
        answer = self._ask(f"after round {round_} failed", f"Please select operation {choices}", accepted, go_on="r")
        return {"r": AfterFailure.RETRY, "c": AfterFailure.SKIP_TRAINING, "q": AfterFailure.STOP}[answer]

    def _ask(self, question: str, prompt: str, accepted: str, *, go_on: str) -> str:
        """One of `accepted`, of which `go_on` is what a wish to resume means."""
        with contextlib.ExitStack() as stack:
            if self._control:
                stack.enter_context(self._control.asking(question))
            stack.enter_context(stopping.at_once())
            stack.enter_context(self._typed.listening())
            self._say(prompt)
            while True:
                try:
                    answer = self._typed.next()
                except EOFError:
                    self._say("\n")
                    return "q"
                if wish := self._control.answer() if self._control else None:
                    self._say(f"({wish.value})\n")
                    if wish is not Wish.PAUSE:
                        return go_on if wish is Wish.RESUME else "q"
                    self._say(prompt)
                elif answer is not None and answer in accepted and answer:
                    self._say(f"{answer}\n" if self._typed.by_key else "")
                    return answer
                elif answer is not None:
                    self._say(f"Please type one of: {', '.join(accepted)}\n{prompt}")

    def _say(self, text: str) -> None:
        self._output.write(text)
        self._output.flush()
