"""From settings to a finished run: check everything, take the workspace, start the engines, run the rounds, report.

Whatever can be wrong is found before anything is spent or written: settings, model, questions, teachers.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from prosetting import __version__
from prosetting.collectors.local_solver import LocalSolver, check_model_folder
from prosetting.collectors.trajectory_collector import TrajectoryCollector
from prosetting.config import Settings
from prosetting.core.artifacts import digest, write_json
from prosetting.core.journal import Journal
from prosetting.core.progress import INTERVAL_S as PROGRESS_INTERVAL_S
from prosetting.core.workspace import Workspace, WorkspaceLock
from prosetting.errors import EXIT_DONE, EXIT_INTERRUPTED, ProSettingError, RunStopped, WorkspaceError
from prosetting.managers.gates import AskingGate, AutomaticGate, Gate
from prosetting.managers.open_teachers import check_teachers, open_teachers
from prosetting.managers.question_manager import QuestionManager, load_pool_and_heldout
from prosetting.managers.report import status_text, write_report
from prosetting.managers.round_controller import Engines, RoundController
from prosetting.managers.round_files import RoundFiles
from prosetting.managers.run_summary import run_summary
from prosetting.processors.answer_verifier import AnswerVerifier
from prosetting.processors.reward_calculator import RewardCalculator
from prosetting.records import PoolEntry, Question
from prosetting.teachers.http_teacher import HttpTeacher
from prosetting.trainers.trl_trainer import TrlTrainer

Mode = Literal["auto", "semi"]
log = logging.getLogger("prosetting")


@dataclass(frozen=True, slots=True)
class _Session:
    """One process's share of a run, which may be resumed many times."""

    settings: Settings
    workspace: Workspace
    journal: Journal
    started: float
    seconds_before: float

    def seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    def write_summary(self, final_status: str) -> dict[str, Any]:
        seconds = self.seconds()
        self.journal.set_fact("run_seconds", seconds)
        summary = run_summary(self.journal, self.settings.total_rounds, final_status, seconds)
        write_json(self.workspace.summary, summary)
        return summary


def start_run(settings: Settings, notices: Sequence[str], mode: Mode) -> int:
    """Run, or go on with, the rounds of a workspace; the exit code. Raises ProSettingError before it has begun."""
    check_model_folder(settings.solver_model_path)
    pool, heldout = load_pool_and_heldout(settings)
    workspace = Workspace.of(settings)
    with ExitStack() as stack:
        stack.enter_context(_terminate_as_interrupt())
        runner = stack.enter_context(asyncio.Runner())
        check_teachers(settings, runner)
        workspace.create()
        stack.enter_context(WorkspaceLock(workspace))
        stack.enter_context(_logging(workspace, mode))
        journal = stack.enter_context(Journal(workspace.journal))
        _bind(journal, settings, pool, heldout)
        config = {"settings": settings.public_values(), "notices": list(notices)}
        write_json(workspace.config, config, version=__version__)
        session = _Session(settings, workspace, journal, time.monotonic(), journal.run_seconds())
        verifier = stack.enter_context(AnswerVerifier())
        log_file = workspace.logs / "embedded_teacher.log"
        teachers = stack.enter_context(open_teachers(settings, runner, log_file=log_file, ledger=journal))
        engines = _engines(session, teachers, verifier, heldout)
        gate: Gate = AskingGate() if mode == "semi" else AutomaticGate(settings)
        controller = RoundController(
            settings, workspace, journal, engines, runner, gate, heldout, lambda: _after_round(session)
        )
        _greet(settings, notices, workspace, pool, heldout, journal)
        if mode == "semi":
            print("========== Semi-Automated Training System Initialization ==========\n✅ Initialization Complete")
            print(status_text(journal, settings.total_rounds), flush=True)
        return _run_and_report(session, controller)


def _run_and_report(session: _Session, controller: RoundController) -> int:
    """Run the rounds; whatever ends them, leave a true state, summary and report."""

    def conclude(final_status: str, error: str = "") -> None:
        controller.state.write_state(final_status, error)
        write_report(session.workspace, session.write_summary(final_status))

    try:
        controller.run(lambda: status_text(session.journal, session.settings.total_rounds))
    except RunStopped:
        conclude("stopped")
        raise
    except KeyboardInterrupt:
        conclude("stopped", "interrupted")
        log.warning("stopped; all that was committed stays. The same command goes on from here")
        return EXIT_INTERRUPTED
    except Exception as error:
        conclude("failed", error.what if isinstance(error, ProSettingError) else repr(error))
        raise
    conclude("completed")
    return EXIT_DONE


def _after_round(session: _Session) -> None:
    session.write_summary("running")


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """SIGTERM ends a run the way Ctrl+C does."""

    def interrupt(number: int, frame: object) -> None:
        # Not `raise KeyboardInterrupt`: asyncio cancels its task cleanly on SIGINT only.
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _logging(workspace: Workspace, mode: Mode) -> Iterator[None]:
    """Log lines go to stderr and to the log file that users know."""
    name = "auto_trainer.log" if mode == "auto" else "semi_auto_trainer.log"
    workspace.logs.mkdir(parents=True, exist_ok=True)
    handlers: list[logging.Handler] = [
        logging.StreamHandler(),
        logging.FileHandler(workspace.logs / name, encoding="utf-8"),
    ]
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


def _engines(
    session: _Session,
    teachers: tuple[HttpTeacher, HttpTeacher],
    verifier: AnswerVerifier,
    heldout: list[Question],
) -> Engines:
    settings, workspace, journal = session.settings, session.workspace, session.journal
    return Engines(
        open_solver=lambda model: LocalSolver(
            model, gpu_ids=settings.physical_solver_gpu, log_file=workspace.logs / "sampler.log"
        ),
        teacher2=teachers[1],
        trainer=TrlTrainer(settings, on_progress=_say_training_step()),
        collector=TrajectoryCollector(journal, settings),
        rewards=RewardCalculator(journal, verifier, teachers[0], settings.teacher_concurrent_workers),
        questions=QuestionManager(journal, settings, heldout),
        files=RoundFiles(workspace, journal),
    )


def _say_training_step() -> Callable[[int, int, float | None], None]:
    """Log lines of training, as far apart as those of the other stages."""
    said = 0.0

    def say(step: int, total: int, loss: float | None) -> None:
        nonlocal said
        if step == total or time.monotonic() - said >= PROGRESS_INTERVAL_S:
            said = time.monotonic()
            log.info("training step %d/%d%s", step, total, "" if loss is None else f" · loss {loss:.3f}")

    return say


def _bind(journal: Journal, settings: Settings, pool: list[Question], heldout: list[Question]) -> None:
    """Tie a new workspace to its fixed settings and questions; refuse other ones later, saying which differ."""
    values: dict[str, Any] = {
        **settings.fixed_values(),
        "questions_file (content)": digest(sorted(q.question_id + str(q.reference) for q in pool)),
        "validation_data_file (content)": digest(sorted(q.question_id + str(q.reference) for q in heldout)),
    }
    stored = journal.fact("fixed_settings")
    if stored is None:
        journal.set_pool(1, [PoolEntry(question, "seed") for question in pool])
        journal.set_fact("fixed_settings", values)
        return
    changed = [
        f"{name.upper()}: {stored.get(name)!r} there, {values.get(name)!r} now"
        for name in sorted(stored.keys() | values.keys())
        if stored.get(name) != values.get(name)
    ]
    if changed:
        raise WorkspaceError(
            "\n    ".join([f"the workspace {settings.workspace_dir} was made with another configuration:", *changed]),
            next_step="put the old values back to go on, or set another WORKSPACE_DIR to start anew",
        )


def _greet(
    settings: Settings,
    notices: Sequence[str],
    workspace: Workspace,
    pool: list[Question],
    heldout: list[Question],
    journal: Journal,
) -> None:
    for notice in notices:
        log.info("notice: %s", notice)
    teacher = settings.teacher_base_url or "embedded, offline"
    log.info("workspace %s · seed %d · teacher %s", workspace.root, settings.seed, teacher)
    log.info(
        "%d rounds, training from round %d · %d questions, %d without reference · %d held out",
        settings.total_rounds,
        settings.first_training_round,
        len(pool),
        sum(question.reference is None for question in pool),
        len(heldout),
    )
    if done := journal.stages_done(1):
        log.info("going on with a run that was begun: round 1 has %d steps done", len(done))
