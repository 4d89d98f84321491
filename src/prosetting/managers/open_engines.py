"""The engines of a run: whether they can be had as the settings order them, and opening them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack

from prosetting.collectors.local_solver import check_model_folder
from prosetting.collectors.solver import Solver
from prosetting.collectors.solver_engines import engine_of
from prosetting.collectors.trajectory_collector import TrajectoryCollector
from prosetting.config import Settings
from prosetting.core import progress
from prosetting.core.gpu_manager import Allocation, GpuManager
from prosetting.core.group_commit import GroupCommit
from prosetting.core.journal import Journal
from prosetting.core.workspace import Workspace
from prosetting.errors import ConfigError
from prosetting.managers.generator_turn import GeneratorTurn
from prosetting.managers.open_teachers import open_teachers
from prosetting.managers.question_manager import QuestionManager
from prosetting.managers.round_controller import Engines
from prosetting.managers.round_gate import check_round_gate
from prosetting.managers.run_so_far import RunSoFar
from prosetting.managers.strategies import check_strategies
from prosetting.processors.answer_verifier import AnswerVerifier
from prosetting.processors.reward_calculator import RewardCalculator
from prosetting.processors.reward_function import RewardFunction, check_reward_function, fingerprint
from prosetting.processors.reward_server import RewardServer
from prosetting.records import Question
from prosetting.teachers.http_teacher import HttpTeacher
from prosetting.trainers.base import Trainer
from prosetting.trainers.generator_trainer import GeneratorTrainer
from prosetting.trainers.ray_trainer import RayTrainer
from prosetting.trainers.trl_trainer import TrlTrainer
from prosetting.trainers.verl_environment import check_verl
from prosetting.trainers.verl_trainer import VerlTrainer

TRAINERS: dict[str, type[TrlTrainer]] = {"accelerate": TrlTrainer, "ray": RayTrainer}
"""By TRL_LAUNCHER."""
OpenSolver = Callable[[Settings, Workspace, str], Solver]
OpenTrainer = Callable[[Settings], Trainer]


def check_engines(settings: Settings, *, trainer_given: bool = False) -> None:
    """Raises ProSettingError for a Solver, a training, a strategy, a round gate or a reward function that cannot be had
    as ordered."""
    check_strategies(settings)
    check_round_gate(settings)
    _check_solver(settings)
    if settings.reward_function:
        check_reward_function(settings.reward_function)
    if settings.generator_model_path:
        check_generator(settings)
    if not settings.trains:
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
    return engine_of(settings).samples_here or settings.trains


def allocation_of(settings: Settings) -> Allocation:
    """Which GPUs sample and which train."""
    processes = None if settings.trains_with_verl else settings.trl_num_processes
    return Allocation(
        sampling=settings.physical_solver_gpu,
        training=settings.physical_grpo_gpu[:processes] if settings.trains or settings.generator_model_path else (),
        samples_here=engine_of(settings).samples_here,
    )


def open_engines(
    stack: ExitStack,
    run: RunSoFar,
    gpus: GpuManager,
    runner: asyncio.Runner,
    kept_apart: list[Question],
    *,
    open_solver: OpenSolver | None = None,
    open_trainer: OpenTrainer | None = None,
) -> Engines:
    """`stack` ends the processes that are started here. The questions of `kept_apart` never enter a pool.

    The two engines that need a model are those of the settings unless others are given.
    """
    settings, workspace, journal = run.settings, run.workspace, run.journal
    commits = GroupCommit(journal)
    log_file = workspace.logs / "embedded_teacher.log"
    teacher1, teacher2 = stack.enter_context(open_teachers(settings, runner, log_file=log_file, commits=commits))
    rewards = _open_rewards(stack, run, commits, teacher1)
    questions = QuestionManager(journal, commits, settings, kept_apart)
    solver = open_solver or _open_solver
    trainer = open_trainer(settings) if open_trainer else _open_trainer(settings, rewards, journal, runner.get_loop())
    return Engines(
        open_solver=lambda model: solver(settings, workspace, model),
        teacher2=teacher2,
        trainer=trainer,
        collector=TrajectoryCollector(commits, settings),
        rewards=rewards,
        questions=questions,
        gpus=gpus,
        reward_fingerprint=fingerprint(settings.reward_function) if settings.reward_function else "",
        generator=_open_generator(run, commits, questions, rewards, open_trainer or open_generator_trainer),
    )


def _open_rewards(stack: ExitStack, run: RunSoFar, commits: GroupCommit, teacher1: HttpTeacher) -> RewardCalculator:
    spec, log_file = run.settings.reward_function, run.workspace.logs / "reward_function.log"
    return RewardCalculator(
        run.journal,
        commits,
        stack.enter_context(AnswerVerifier()),
        teacher1,
        reward_function=stack.enter_context(RewardFunction(spec, log_file)) if spec else None,
        concurrent_workers=run.settings.teacher_concurrent_workers,
        run_seed=run.settings.seed,
    )


def _open_generator(
    run: RunSoFar,
    commits: GroupCommit,
    questions: QuestionManager,
    rewards: RewardCalculator,
    open_trainer: OpenTrainer,
) -> GeneratorTurn | None:
    if not run.settings.generator_model_path:
        return None
    trainer, trials = open_trainer(run.settings), rewards.without_teacher()
    return GeneratorTurn(run.settings, run.workspace, run.journal, trainer, commits, questions, trials)


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
