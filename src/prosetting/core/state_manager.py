"""Which stages of which round are done, and the state files that tell people so.

A stage is skipped because its marker in the journal holds the inputs that it would have now, not because a file
exists. Inputs are named: settings as they are, content as digests, earlier stages by the digest of their own inputs.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from prosetting.core import pausing
from prosetting.core.artifacts import digest, write_json
from prosetting.core.crash_points import reached
from prosetting.core.journal import Journal
from prosetting.core.stopping import StopRequested
from prosetting.core.workspace import Workspace
from prosetting.errors import ProSettingError, RunPaused, RunStopped, WorkspaceError
from prosetting.records import Stage

log = logging.getLogger("prosetting")

EVALUATION = "evaluation"
"""Scoring of a round's checkpoint: run after training, not one of the five stages."""
ROUND_GATE = "round_gate"
"""Whether the round's new weights are kept (managers/round_gate.py)."""
EVAL_FILES = "eval_files"
"""Scoring of the last weights on EVAL_FILES, after the last round."""
CONCLUSION = "conclusion"
"""Writing a round's result files: the last thing done in a round, so its marker means a round that is over."""
WRITING = "writing_questions"
"""Teacher2 at work beside the stages before `next_round_prep`, which waits for it: no stage, it has no marker."""
GENERATOR_TRAINING = "generator_training"
GENERATOR_DRAFTS = "generator_drafts"
"""The Generator's turn, between grading and the Solver's training: it learns, then writes. Neither is of the five."""
GENERATOR_TRIALS = "generator_trials"
"""The Solver's attempts at what the Generator wrote, after the Solver's training."""
NOTE_CHARS = 500


class StateManager:
    """Runs stages once and keeps `training_state.json` and `round_XX_progress.json` true."""

    def __init__(self, workspace: Workspace, journal: Journal, total_rounds: int) -> None:
        self._workspace = workspace
        self._journal = journal
        self._total_rounds = total_rounds
        self.current = self._latest()
        """The earliest stage in progress, or the one that failed."""
        self._in_progress: list[tuple[int, str]] = []
        self._spans: dict[tuple[int, str], int] = {}
        self._session_begun = False

    def _latest(self) -> tuple[int, str]:
        """The stage that was done last: where a run stands that has nothing left to do."""
        for round_ in range(self._total_rounds, 0, -1):
            if done := self._journal.stages_done(round_):
                return round_, done[-1]
        return 1, Stage.DATA_COLLECTION

    async def run_stage(
        self, round_: int, stage: str, inputs: dict[str, Any], work: Callable[[], Awaitable[dict[str, Any]]]
    ) -> dict[str, Any]:
        """The stage's output: remembered when it is done, else from `work`, which is committed on return.

        Several stages of a round may be in progress at a time; their markers fall in the order of the stages.

        Raises WorkspaceError, naming what differs, for a stage that was done with other inputs.
        """
        done = self._journal.stage(round_, stage)
        if done is not None:
            if changed := differences(done.inputs, inputs):
                raise WorkspaceError(
                    "\n    ".join([f"round {round_} · {stage} was done with other inputs than it has now:", *changed]),
                    next_step=two_ways_out(max(0, round_ - 1), "the last round that this leaves as it is"),
                )
            return done.output
        self._begin(round_, stage)
        if stage != CONCLUSION:
            log.info("round %d · %s", round_, stage)
        started = pausing.clock()
        reached(f"stage:begun:{stage}")
        try:
            output = await work()
        except BaseException as error:
            self._broken(round_, stage, error)
            raise
        self._in_progress.remove((round_, stage))
        seconds = pausing.clock() - started
        reached(f"stage:worked:{stage}")
        with self._journal.transaction():
            self._journal.finish_stage(round_, stage, inputs, output, seconds)
            self._journal.end_span(self._spans.pop((round_, stage)), "done")
        reached(f"stage:marked:{stage}")
        if self._in_progress:
            self.current = self._in_progress[0]
            self.write_state("running")
        self.write_progress(round_)
        if stage != CONCLUSION:
            log.info("round %d · %s done in %.1f s · %s", round_, stage, seconds, _brief(output))
        return output

    def _begin(self, round_: int, stage: str) -> None:
        self._begin_span(round_, stage)
        self._in_progress.append((round_, stage))
        self.current = self._in_progress[0]
        self.write_state("running")

    def _broken(self, round_: int, stage: str, error: BaseException) -> None:
        """The first error of stages side by side is the one that counts; the others are only its consequence."""
        if self._in_progress and isinstance(error, ProSettingError | OSError):
            self.current = (round_, stage)
        self._in_progress = []
        self._end_span(round_, stage, error)

    @contextmanager
    def span(self, round_: int, name: str) -> Iterator[None]:
        """Work that has no marker of its own, for the record of when it was done."""
        self._begin_span(round_, name)
        try:
            yield
        except BaseException as error:
            self._end_span(round_, name, error)
            raise
        self._journal.end_span(self._spans.pop((round_, name)), "done")

    def _begin_span(self, round_: int, name: str) -> None:
        with self._journal.transaction():
            if not self._session_begun:
                self._journal.end_killed_spans()
            self._spans[round_, name] = self._journal.begin_span(round_, name)
        self._session_begun = True

    def _end_span(self, round_: int, name: str, error: BaseException) -> None:
        stopped = isinstance(error, RunStopped | StopRequested) or not isinstance(error, Exception)
        outcome = "stopped" if stopped else "paused" if isinstance(error, RunPaused) else "failed"
        note = "" if stopped else error.what if isinstance(error, ProSettingError) else repr(error)
        # A disk that takes no writes may be what the error is about.
        with suppress(sqlite3.Error):
            self._journal.end_span(self._spans.pop((round_, name)), outcome, note[:NOTE_CHARS])

    def stage_input_hash(self, round_: int, stage: str) -> str:
        """Names a stage that is done by what went into it; later stages put it among their inputs."""
        record = self._journal.stage(round_, stage)
        assert record is not None, f"round {round_} · {stage} is not done"
        return digest(stage, record.inputs)

    def completed_rounds(self) -> list[int]:
        """Rounds whose five stages are done."""
        stages = {stage.value for stage in Stage}
        return [r for r in range(1, self._total_rounds + 1) if stages <= set(self._journal.stages_done(r))]

    def write_state(self, status: str, error: str = "") -> None:
        """`training_state.json`: where the run stands. `status`: running, completed, stopped, paused, failed."""
        completed = self.completed_rounds()
        write_json(
            self._workspace.state,
            {
                "status": status,
                "current_round": self.current[0],
                "current_stage": self.current[1],
                "completed_rounds": completed,
                "total_rounds": self._total_rounds,
                "can_continue": len(completed) < self._total_rounds,
                "error": error,
            },
        )

    def write_progress(self, round_: int) -> None:
        """`round_XX_progress.json`: what each stage of a round came to."""
        records = {stage: self._journal.stage(round_, stage) for stage in self._journal.stages_done(round_)}
        write_json(
            self._workspace.progress(round_),
            {
                "round": round_,
                "stages": {stage: record.output for stage, record in records.items() if record},
                "open_stages": [stage.value for stage in Stage if stage.value not in records],
            },
            seconds={stage: round(record.seconds, 2) for stage, record in records.items() if record},
            finished_at={stage: record.finished_at for stage, record in records.items() if record},
        )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two sets of named values, a line each, by name."""
    absent = object()
    return [
        f"{name}: {_shown(before, name)} there, {_shown(now, name)} now"
        for name in sorted(before.keys() | now.keys())
        if before.get(name, absent) != now.get(name, absent)
    ]


def _shown(values: Mapping[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "nothing"


def two_ways_out(round_: int, why: str) -> str:
    """What to do about a difference: undo it, or go on with it in a workspace of its own."""
    return (
        "put the old values back to go on here, or go on with the new ones in another workspace,"
        f" after round {round_} ({why}):\n    prosetting fork --from-round {round_} --to DIR"
    )


def _brief(output: dict[str, Any]) -> str:
    """The plain values of a stage's output, for one log line."""
    plain = {key: value for key, value in output.items() if isinstance(value, int | float | str) and key != "digest"}
    return ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in plain.items()
    )
