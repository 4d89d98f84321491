"""From settings to a finished run: check everything, take the workspace, start the engines, run the rounds, report.

Whatever can be wrong is found before anything is spent or written: settings, model, questions, teachers.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Literal

from prosetting import __version__
from prosetting.config import Settings
from prosetting.core import pausing, stopping
from prosetting.core.artifacts import write_json
from prosetting.core.control import Control
from prosetting.core.gpu_manager import GpuManager
from prosetting.core.journal import Journal
from prosetting.core.live_lines import can_be_live, live_handler
from prosetting.core.orphans import none_left_behind, pids_of_run
from prosetting.core.state_manager import StateManager
from prosetting.core.storage import pause_for, writes_pause
from prosetting.core.workspace import Workspace, WorkspaceLock
from prosetting.errors import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    ProSettingError,
    RunPaused,
    RunStopped,
    TeacherUnavailable,
)
from prosetting.managers.binding import bind, check_versions
from prosetting.managers.gates import AskingGate, AutomaticGate, Gate
from prosetting.managers.metrics import write_metrics
from prosetting.managers.open_engines import OpenSolver, OpenTrainer, allocation_of, check_engines, open_engines
from prosetting.managers.open_teachers import check_teachers
from prosetting.managers.question_files import QuestionFiles, load_question_files
from prosetting.managers.repair import check_journal_is_there, set_damaged_aside, write_missing
from prosetting.managers.report import write_report
from prosetting.managers.resources import ResourceSampler
from prosetting.managers.round_controller import RoundController
from prosetting.managers.round_gate import what_it_cannot_do
from prosetting.managers.run_so_far import RunSoFar
from prosetting.managers.run_summary import run_summary
from prosetting.managers.status_view import status_text
from prosetting.trainers import verl_job
from prosetting.trainers.launch import in_words

Mode = Literal["auto", "semi"]
log = logging.getLogger("prosetting")


@dataclass(frozen=True, slots=True)
class _Session:
    """One process's share of a run, which may be resumed many times."""

    run: RunSoFar
    started: float
    seconds_before: float

    def seconds(self) -> float:
        return self.seconds_before + pausing.clock() - self.started

    def write_summary(self, final_status: str, reason: str = "") -> dict[str, Any]:
        seconds = self.seconds()
        self.run.journal.set_fact("run_seconds", seconds)
        summary = run_summary(self.run.journal, self.run.settings.total_rounds, final_status, seconds, reason)
        write_json(self.run.workspace.summary, summary)
        return summary

    def after_round(self) -> None:
        self.write_summary("running")
        write_metrics(self.run.workspace, self.run.journal)

    def write_end(self, final_status: str, error: str = "") -> None:
        self.run.state.write_state(final_status, error)
        summary = self.write_summary(final_status, error)
        write_metrics(self.run.workspace, self.run.journal)
        write_report(self.run.workspace, self.run.journal, summary)


def start_run(
    settings: Settings,
    notices: Sequence[str],
    mode: Mode,
    *,
    command: str = "prosetting run",
    open_solver: OpenSolver | None = None,
    open_trainer: OpenTrainer | None = None,
) -> int:
    """Run, or go on with, the rounds of a workspace; the exit code. Raises ProSettingError before it has begun.

    The two engines that need a model are those of the settings unless others are given. `command` is what a person
    types to go on with this run; reports tell it.
    """
    check_engines(settings, trainer_given=open_trainer is not None)
    files = load_question_files(settings)
    workspace = Workspace.of(settings)
    check_versions(workspace)
    with ExitStack() as stack:
        stack.enter_context(stopping.stoppable())
        stack.enter_context(pausing.pausable())
        runner = stack.enter_context(asyncio.Runner())
        check_teachers(settings, runner)
        _take_workspace(stack, workspace, mode)
        control = stack.enter_context(Control(workspace))
        gpus = _take_gpus(settings, workspace)
        stack.enter_context(ResourceSampler(workspace))
        run = _open_run(stack, settings, workspace, files)
        config = {"settings": settings.public_values(), "notices": list(notices), "command": command}
        write_json(workspace.config, config, version=__version__)
        session = _Session(run, pausing.clock(), run.journal.run_seconds())
        engines = open_engines(
            stack, run, gpus, runner, files.kept_apart, open_solver=open_solver, open_trainer=open_trainer
        )
        gate: Gate = AskingGate(control) if mode == "semi" else AutomaticGate(settings)
        controller = RoundController(run, engines, runner, gate, files, session.after_round)
        write_missing(run)
        _greet(run, notices, files, mode)
        return _run_and_report(session, controller)


def _take_workspace(stack: ExitStack, workspace: Workspace, mode: Mode) -> None:
    """From here on it is this run's alone, and what an earlier one left hanging is gone."""
    workspace.create()
    stack.enter_context(writes_pause(workspace.root))
    stack.enter_context(WorkspaceLock(workspace))
    stack.enter_context(_logging(workspace, mode))
    stack.enter_context(none_left_behind(workspace.root))


def _take_gpus(settings: Settings, workspace: Workspace) -> GpuManager:
    gpus = GpuManager(allocation_of(settings), lambda: pids_of_run(workspace.root))
    if not settings.gpu_sharing:
        gpus.check_free()
    return gpus


def _open_run(stack: ExitStack, settings: Settings, workspace: Workspace, files: QuestionFiles) -> RunSoFar:
    """The journal, bound to the settings and the questions; damaged files beside it are set aside."""
    check_journal_is_there(workspace)
    set_damaged_aside(workspace)
    journal = stack.enter_context(Journal(workspace.journal))
    bind(journal, settings, files)
    return RunSoFar(settings, workspace, journal, StateManager(workspace, journal, settings.total_rounds))


def _run_and_report(session: _Session, controller: RoundController) -> int:
    """Run the rounds; whatever ends them, leave a true state, summary and report."""
    try:
        controller.run(lambda: _status(session.run))
    except RunStopped:
        session.write_end("stopped")
        raise
    except (KeyboardInterrupt, stopping.StopRequested):
        session.write_end("stopped", "interrupted")
        log.warning("stopped; all that was committed stays. The same command goes on from here")
        return EXIT_INTERRUPTED
    except (RunPaused, TeacherUnavailable) as error:
        with suppress(OSError, sqlite3.Error):
            session.write_end("paused", error.what)
        raise
    except Exception as error:
        if pause := pause_for(error, session.run.workspace.root):
            with suppress(OSError, sqlite3.Error):
                session.write_end("paused", pause.what)
            raise pause from error
        session.write_end("failed", error.what if isinstance(error, ProSettingError) else repr(error))
        raise
    session.write_end("completed")
    return EXIT_DONE


def _status(run: RunSoFar) -> str:
    return status_text(run.journal, run.workspace, run.settings.total_rounds)


@contextmanager
def _logging(workspace: Workspace, mode: Mode) -> Iterator[None]:
    """Log lines go to stderr and to the log file that users know."""
    name = "auto_trainer.log" if mode == "auto" else "semi_auto_trainer.log"
    workspace.logs.mkdir(parents=True, exist_ok=True)
    with live_handler() if can_be_live() else nullcontext(logging.StreamHandler()) as to_stderr:
        handlers = [to_stderr, logging.FileHandler(workspace.logs / name, encoding="utf-8")]
        for handler in handlers:
            handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
            log.addHandler(handler)
        log.setLevel(logging.INFO)
        try:
            yield
        finally:
            for handler in handlers:
                log.removeHandler(handler)
                handler.close()


def _greet(run: RunSoFar, notices: Sequence[str], files: QuestionFiles, mode: Mode) -> None:
    settings = run.settings
    for notice in notices:
        log.info("notice: %s", notice)
    teacher = settings.teacher_base_url or "embedded, offline"
    log.info("workspace %s · seed %d · teacher %s", run.workspace.root, settings.seed, teacher)
    log.info(
        "%d rounds, training from round %d · %d questions, %d without reference · %d held out, %d reported on",
        settings.total_rounds,
        settings.first_training_round,
        len(files.pool),
        sum(question.reference is None for question in files.pool),
        len(files.heldout),
        len(files.all_reported),
    )
    if settings.trains:
        how = verl_job.in_words(settings) if settings.trains_with_verl else in_words(settings)
        log.info("training: %s", how)
        if cannot := what_it_cannot_do(settings, len(files.heldout)):
            log.info("notice: %s", cannot)
    if settings.generator_model_path:
        share = f"{settings.generator_share:.0%}" if settings.generator_share else "none"
        log.info(
            "Generator: %s, learns every round, writes %s of the new questions", settings.generator_model_path, share
        )
    if done := run.journal.stages_done(1):
        log.info("going on with a run that was begun: round 1 has %d steps done", len(done))
    if mode == "semi":
        print("========== Semi-Automated Training System Initialization ==========\n✅ Initialization Complete")
        print(_status(run), flush=True)
