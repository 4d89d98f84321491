"""From settings to a finished run: check everything, take the workspace, start the engines, run the rounds, report.

Whatever can be wrong is found before anything is spent or written: settings, model, questions, teachers.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Literal

from prosetting import __version__
from prosetting.collectors.local_solver import check_model_folder
from prosetting.collectors.solver import Solver
from prosetting.collectors.solver_engines import engine_of
from prosetting.collectors.trajectory_collector import TrajectoryCollector
from prosetting.config import Settings
from prosetting.core import pausing, progress, stopping
from prosetting.core.artifacts import write_json
from prosetting.core.control import Control
from prosetting.core.gpu_manager import Allocation, GpuManager
from prosetting.core.group_commit import GroupCommit
from prosetting.core.journal import Journal
from prosetting.core.live_lines import can_be_live, live_handler
from prosetting.core.orphans import none_left_behind, pids_of_run
from prosetting.core.state_manager import StateManager
from prosetting.core.storage import pause_for, writes_pause
from prosetting.core.workspace import Workspace, WorkspaceLock
from prosetting.errors import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    ConfigError,
    ProSettingError,
    RunPaused,
    RunStopped,
    TeacherUnavailable,
)
from prosetting.managers.binding import bind, check_versions
from prosetting.managers.gates import AskingGate, AutomaticGate, Gate
from prosetting.managers.generator_turn import GeneratorTurn
from prosetting.managers.metrics import write_metrics
from prosetting.managers.open_teachers import check_teachers, open_teachers
from prosetting.managers.question_files import QuestionFiles, load_question_files
from prosetting.managers.question_manager import QuestionManager
from prosetting.managers.repair import check_journal_is_there, set_damaged_aside, write_missing
from prosetting.managers.report import write_report
from prosetting.managers.resources import ResourceSampler
from prosetting.managers.round_controller import Engines, RoundController
from prosetting.managers.round_gate import check_round_gate, what_it_cannot_do
from prosetting.managers.run_so_far import RunSoFar
from prosetting.managers.run_summary import run_summary
from prosetting.managers.status_view import status_text
from prosetting.managers.strategies import check_strategies
from prosetting.processors.answer_verifier import AnswerVerifier
from prosetting.processors.reward_calculator import RewardCalculator
from prosetting.processors.reward_function import RewardFunction, check_reward_function, fingerprint
from prosetting.processors.reward_server import RewardServer
from prosetting.records import Question
from prosetting.teachers.http_teacher import HttpTeacher
from prosetting.trainers import verl_job
from prosetting.trainers.base import Trainer
from prosetting.trainers.generator_trainer import GeneratorTrainer
from prosetting.trainers.launch import in_words
from prosetting.trainers.ray_trainer import RayTrainer
from prosetting.trainers.trl_trainer import TrlTrainer
from prosetting.trainers.verl_environment import check_verl
from prosetting.trainers.verl_trainer import VerlTrainer

Mode = Literal["auto", "semi"]
TRAINERS: dict[str, type[TrlTrainer]] = {"accelerate": TrlTrainer, "ray": RayTrainer}
"""By TRL_LAUNCHER."""
OpenSolver = Callable[[Settings, Workspace, str], Solver]
OpenTrainer = Callable[[Settings], Trainer]
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
        return self.seconds_before + pausing.clock() - self.started

    def write_summary(self, final_status: str, reason: str = "") -> dict[str, Any]:
        seconds = self.seconds()
        self.journal.set_fact("run_seconds", seconds)
        summary = run_summary(self.journal, self.settings.total_rounds, final_status, seconds, reason)
        write_json(self.workspace.summary, summary)
        return summary


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
    if settings.reward_function:
        check_reward_function(settings.reward_function)
    files = load_question_files(settings)
    workspace = Workspace.of(settings)
    check_versions(workspace)
    with ExitStack() as stack:
        stack.enter_context(stopping.stoppable())
        stack.enter_context(pausing.pausable())
        runner = stack.enter_context(asyncio.Runner())
        check_teachers(settings, runner)
        workspace.create()
        stack.enter_context(writes_pause(workspace.root))
        stack.enter_context(WorkspaceLock(workspace))
        stack.enter_context(_logging(workspace, mode))
        stack.enter_context(none_left_behind(workspace.root))
        control = stack.enter_context(Control(workspace))
        gpus = GpuManager(_allocation(settings), lambda: pids_of_run(workspace.root))
        if not settings.gpu_sharing:
            gpus.check_free()
        stack.enter_context(ResourceSampler(workspace))
        check_journal_is_there(workspace)
        set_damaged_aside(workspace)
        journal = stack.enter_context(Journal(workspace.journal))
        bind(journal, settings, files)
        config = {"settings": settings.public_values(), "notices": list(notices), "command": command}
        write_json(workspace.config, config, version=__version__)
        session = _Session(settings, workspace, journal, pausing.clock(), journal.run_seconds())
        log_file = workspace.logs / "embedded_teacher.log"
        commits = GroupCommit(journal)
        teachers = stack.enter_context(open_teachers(settings, runner, log_file=log_file, commits=commits))
        engines = _engines(
            stack,
            session,
            gpus,
            commits,
            teachers,
            files.kept_apart,
            open_solver or _open_solver,
            open_trainer,
            runner.get_loop(),
        )
        gate: Gate = AskingGate(control) if mode == "semi" else AutomaticGate(settings)
        run = RunSoFar(settings, workspace, journal, StateManager(workspace, journal, settings.total_rounds))
        controller = RoundController(run, engines, runner, gate, files, lambda: _after_round(session))
        write_missing(run)
        _greet(settings, notices, workspace, files, journal)
        if mode == "semi":
            print("========== Semi-Automated Training System Initialization ==========\n✅ Initialization Complete")
            print(status_text(journal, workspace, settings.total_rounds), flush=True)
        return _run_and_report(session, run.state, controller)


def _run_and_report(session: _Session, state: StateManager, controller: RoundController) -> int:
    """Run the rounds; whatever ends them, leave a true state, summary and report."""

    def conclude(final_status: str, error: str = "") -> None:
        state.write_state(final_status, error)
        summary = session.write_summary(final_status, error)
        write_metrics(session.workspace, session.journal)
        write_report(session.workspace, session.journal, summary)

    try:
        controller.run(lambda: status_text(session.journal, session.workspace, session.settings.total_rounds))
    except RunStopped:
        conclude("stopped")
        raise
    except (KeyboardInterrupt, stopping.StopRequested):
        conclude("stopped", "interrupted")
        log.warning("stopped; all that was committed stays. The same command goes on from here")
        return EXIT_INTERRUPTED
    except (RunPaused, TeacherUnavailable) as error:
        with suppress(OSError, sqlite3.Error):
            conclude("paused", error.what)
        raise
    except Exception as error:
        if pause := pause_for(error, session.workspace.root):
            with suppress(OSError, sqlite3.Error):
                conclude("paused", pause.what)
            raise pause from error
        conclude("failed", error.what if isinstance(error, ProSettingError) else repr(error))
        raise
    conclude("completed")
    return EXIT_DONE


def _after_round(session: _Session) -> None:
    session.write_summary("running")
    write_metrics(session.workspace, session.journal)


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


def _engines(
    stack: ExitStack,
    session: _Session,
    gpus: GpuManager,
    commits: GroupCommit,
    teachers: tuple[HttpTeacher, HttpTeacher],
    kept_apart: list[Question],
    open_solver: OpenSolver,
    open_trainer: OpenTrainer | None,
    loop: asyncio.AbstractEventLoop,
) -> Engines:
    """`stack` ends the verifier's and the reward function's processes."""
    settings, workspace, journal = session.settings, session.workspace, session.journal
    spec = settings.reward_function
    log_file = workspace.logs / "reward_function.log"
    rewards = RewardCalculator(
        journal,
        commits,
        stack.enter_context(AnswerVerifier()),
        teachers[0],
        reward_function=stack.enter_context(RewardFunction(spec, log_file)) if spec else None,
        concurrent_workers=settings.teacher_concurrent_workers,
        run_seed=settings.seed,
    )
    questions = QuestionManager(journal, commits, settings, kept_apart)
    return Engines(
        open_solver=lambda model: open_solver(settings, workspace, model),
        teacher2=teachers[1],
        trainer=open_trainer(settings) if open_trainer else _open_trainer(settings, rewards, journal, loop),
        collector=TrajectoryCollector(commits, settings),
        rewards=rewards,
        questions=questions,
        gpus=gpus,
        reward_fingerprint=fingerprint(spec) if spec else "",
        generator=_generator(session, (open_trainer or open_generator_trainer)(settings), commits, questions),
    )


def _generator(
    session: _Session, trainer: Trainer, commits: GroupCommit, questions: QuestionManager
) -> GeneratorTurn | None:
    if not session.settings.generator_model_path:
        return None
    return GeneratorTurn(session.settings, session.workspace, session.journal, trainer, commits, questions)


def check_engines(settings: Settings, *, trainer_given: bool = False) -> None:
    """Raises ProSettingError for a Solver, a training, a strategy or a round gate that cannot be had as ordered."""
    check_strategies(settings)
    check_round_gate(settings)
    _check_solver(settings)
    if settings.generator_model_path:
        check_generator(settings)
    if not trains(settings):
        return
    if not settings.trains_with_verl:
        TRAINERS[settings.trl_launcher].check(settings)
    elif not trainer_given:
        check_verl(settings)


def _check_solver(settings: Settings) -> None:
    """Whoever samples must be there; a model that is only sampled from servers need not be on this machine."""
    engine_of(settings).check(settings)
    if needs_model_here(settings):
        check_model_folder(settings.solver_model_path)


def check_generator(settings: Settings) -> None:
    """Raises ConfigError for a Generator that cannot be trained, or asked, as ordered."""
    assert settings.generator_model_path
    check_model_folder(settings.generator_model_path, "GENERATOR_MODEL_PATH")
    GeneratorTrainer.check(settings)
    if settings.generator_share and settings.solver_base_urls and not settings.solver_reload_command:
        raise ConfigError(
            "GENERATOR_SHARE with SOLVER_BASE_URLS: those servers hold the Solver, and nothing makes them serve the"
            " Generator in its turn",
            next_step="set SOLVER_RELOAD_COMMAND to a command that makes them serve {model}, or SOLVER_ENGINE=vllm"
            " with no SOLVER_BASE_URLS",
        )


def needs_model_here(settings: Settings) -> bool:
    """Whether this machine samples or trains."""
    return engine_of(settings).samples_here or trains(settings)


def trains(settings: Settings) -> bool:
    """Whether any round trains."""
    return settings.first_training_round <= settings.total_rounds


def _allocation(settings: Settings) -> Allocation:
    processes = None if settings.trains_with_verl else settings.trl_num_processes
    return Allocation(
        sampling=settings.physical_solver_gpu,
        training=settings.physical_grpo_gpu[:processes] if trains(settings) or settings.generator_model_path else (),
        samples_here=engine_of(settings).samples_here,
    )


def _open_solver(settings: Settings, workspace: Workspace, model: str) -> Solver:
    return engine_of(settings).open(settings, workspace.logs, model)


def _open_trainer(
    settings: Settings, rewards: RewardCalculator, journal: Journal, loop: asyncio.AbstractEventLoop
) -> Trainer:
    if settings.trains_with_verl:
        service = RewardServer(rewards, journal.question, loop)
        return VerlTrainer(settings, service, on_progress=_training_progress())
    trainer = TRAINERS[settings.trl_launcher]
    return trainer(settings, on_progress=_training_progress(), stop_grace_s=settings.trl_stop_grace)


def open_generator_trainer(settings: Settings) -> Trainer:
    say = _training_progress("training the Generator, steps")
    return GeneratorTrainer(settings, on_progress=say, stop_grace_s=settings.trl_stop_grace)


def _training_progress(what: str = "training, steps") -> Callable[[int, int, float | None], None]:
    """A line of progress for each training; one that is gone on with begins where it is."""
    line: progress.Progress | None = None

    def say(step: int, total: int, loss: float | None) -> None:
        nonlocal line
        if line is None or step < line.done:
            line = progress.Progress(what, total)
            line.done = step
        line.advance(step - line.done, "" if loss is None else f"loss {loss:.3f}")
        if step >= total:
            line = None

    return say


def _greet(
    settings: Settings,
    notices: Sequence[str],
    workspace: Workspace,
    files: QuestionFiles,
    journal: Journal,
) -> None:
    for notice in notices:
        log.info("notice: %s", notice)
    teacher = settings.teacher_base_url or "embedded, offline"
    log.info("workspace %s · seed %d · teacher %s", workspace.root, settings.seed, teacher)
    log.info(
        "%d rounds, training from round %d · %d questions, %d without reference · %d held out, %d reported on",
        settings.total_rounds,
        settings.first_training_round,
        len(files.pool),
        sum(question.reference is None for question in files.pool),
        len(files.heldout),
        len(files.all_reported),
    )
    if trains(settings):
        how = verl_job.in_words(settings) if settings.trains_with_verl else in_words(settings)
        log.info("training: %s", how)
        if cannot := what_it_cannot_do(settings, len(files.heldout)):
            log.info("notice: %s", cannot)
    if settings.generator_model_path:
        share = f"{settings.generator_share:.0%}" if settings.generator_share else "none"
        log.info(
            "Generator: %s, learns every round, writes %s of the new questions", settings.generator_model_path, share
        )
    if done := journal.stages_done(1):
        log.info("going on with a run that was begun: round 1 has %d steps done", len(done))
