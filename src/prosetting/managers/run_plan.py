"""What a run would do, and about what it would take: `prosetting run --dry-run`. Reads files; starts and writes none.

What the workspace has measured in earlier rounds is used. Before the first round there is only what the settings and
the files say, and assumptions, each of which is told with the plan. They are meant to find a budget that is off by a
factor, not by a tenth.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prosetting.config import Settings
from prosetting.core.journal import Journal
from prosetting.core.machine import this_machine
from prosetting.core.state_manager import CONCLUSION
from prosetting.core.workspace import Workspace
from prosetting.managers.generator_drafts import DRAFTED_AHEAD, DRAFTS
from prosetting.managers.metrics import RoundMetrics, round_metrics
from prosetting.managers.question_files import QuestionFiles
from prosetting.managers.room import bytes_needed, weights_bytes
from prosetting.managers.training_rounds import TRAIN_ON
from prosetting.processors.canaries import CANARIES_A_BATCH
from prosetting.processors.reward_calculator import ATTEMPTS_BETWEEN_CANARIES, LEFT_OPEN_BY_RULES, REGRADED_A_ROUND
from prosetting.records import Question, Stage, Verdict
from prosetting.teachers.base import ShownAttempt
from prosetting.teachers.prompts import analyse_prompt, enhance_prompt, grade_prompt, solve_prompt

CHARS_A_TOKEN = 4
SHARE_OF_LONGEST = 0.5
"""Of SOLVER_MAX_NEW_TOKENS: an attempt, before any was drawn."""
FAILED_SHARE = 0.8
"""Of a pool: questions with an incorrect attempt."""
MIXED_SHARE = 0.6
"""Of a pool: questions with both, of which pairs are made."""
ADMITTED_SHARE = 0.65
"""Of Teacher2's questions: those that pass the gate (two thirds in the demo)."""
REPLY_TOKENS = {"grade": 60, "analyse": 80, "enhance": 250, "solve": 60}
CALL_SECONDS = {True: 3.0, False: 0.02}
"""A teacher's call: of an endpoint, of the embedded one."""
# What a processor keeps up over a round, all losses included, in operations a second; and what Python adds to a token.
GPU_FLOPS, CORE_FLOPS = 4e13, 1.5e10
MOST_TOKENS_A_SECOND = 20_000
BYTES_A_PARAMETER = 2


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """One round to come. `sampled_tokens` are the Solver's, `teacher_tokens` go both ways; None: not known."""

    round: int
    trains: bool
    questions: int
    attempts: int
    new_questions: int
    sampled_tokens: int
    teacher_calls: int
    teacher_tokens: int
    cost: float | None
    seconds: float | None
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class RunPlan:
    """The rounds that are left, their sums, and what all of it rests on."""

    settings: dict[str, Any]
    notices: list[str]
    workspace: str
    rounds_done: int
    rounds: list[RoundPlan]
    sampled_tokens: int
    teacher_calls: int
    teacher_tokens: int
    cost: float | None
    seconds: float | None
    disk_bytes: int
    free_disk_bytes: int
    assumptions: list[str]


@dataclass(frozen=True, slots=True)
class _Basis:
    """What one question, attempt, call and token are taken to need."""

    attempt_tokens: float
    failed_share: float
    admitted_share: float
    calls_a_question: float
    tokens_a_call: float
    cost_a_call: float | None
    seconds_a_question: float | None
    training_seconds: float | None
    weights: int


def plan_run(settings: Settings, notices: Sequence[str], files: QuestionFiles) -> RunPlan:
    """The plan of a run, or of what is left of it where the workspace holds one."""
    workspace = Workspace.of(settings)
    measured, done, questions = _measured(workspace, len(files.pool))
    basis, assumptions = _basis(settings, files.pool, measured)
    rounds = []
    for round_ in range(done + 1, settings.total_rounds + 1):
        trains, last = round_ >= settings.first_training_round, round_ == settings.total_rounds
        scored = (int(round_ == 1) + int(trains)) * len(files.heldout) + int(last) * len(files.all_reported)
        plan = _plan_round(settings, basis, round_, questions, scored * (settings.eval_attempts + 1))
        rounds.append(plan)
        questions = _next_pool(settings, basis, plan)
    there = next(folder for folder in (workspace.root, *workspace.root.parents) if folder.exists())
    costs, seconds = [plan.cost for plan in rounds], [plan.seconds for plan in rounds]
    return RunPlan(
        settings=settings.public_values(),
        notices=list(notices),
        workspace=str(workspace.root),
        rounds_done=done,
        rounds=rounds,
        sampled_tokens=sum(plan.sampled_tokens for plan in rounds),
        teacher_calls=sum(plan.teacher_calls for plan in rounds),
        teacher_tokens=sum(plan.teacher_tokens for plan in rounds),
        cost=None if None in costs else sum(cost for cost in costs if cost is not None),
        seconds=None if None in seconds else sum(second for second in seconds if second is not None),
        disk_bytes=sum(plan.disk_bytes for plan in rounds),
        free_disk_bytes=shutil.disk_usage(there).free,
        assumptions=assumptions,
    )


def _measured(workspace: Workspace, first_pool: int) -> tuple[RoundMetrics | None, int, int]:
    """The latest finished round's figures, how many rounds are done, and the questions of the next one."""
    if not workspace.journal.exists():
        return None, 0, first_pool
    with Journal(workspace.journal, read_only=True) as journal:
        done = len(journal.rounds_with(CONCLUSION))
        following = sum(journal.pool_counts(done + 1).values()) or first_pool
        return round_metrics(journal, workspace, done) if done else None, done, following


def _basis(settings: Settings, pool: Sequence[Question], measured: RoundMetrics | None) -> tuple[_Basis, list[str]]:
    weights = weights_bytes(Path(settings.solver_model_path).expanduser())
    if measured is not None and measured.train and measured.pool:
        return _measured_basis(settings, measured, weights)
    attempt_tokens = settings.solver_max_new_tokens * SHARE_OF_LONGEST
    calls, tokens = _calls_of_a_question(settings, pool, attempt_tokens)
    prompt_price, completion_price = settings.teacher_price_prompt, settings.teacher_price_completion
    embedded = not settings.teacher_base_url
    price = None
    if embedded:
        price = 0.0
    elif prompt_price is not None or completion_price is not None:
        price = (tokens[0] * (prompt_price or 0) + tokens[1] * (completion_price or 0)) / 1e6
    told = [
        f"an attempt has {attempt_tokens:.0f} tokens, half of SOLVER_MAX_NEW_TOKENS",
        f"{FAILED_SHARE:.0%} of a pool fail at least once, {ADMITTED_SHARE:.0%} of Teacher2's questions are admitted",
        f"rules leave {LEFT_OPEN_BY_RULES:.0%} of attempts at questions with a reference to Teacher1",
        f"a teacher's call takes {CALL_SECONDS[not embedded]:g} s; a token has {CHARS_A_TOKEN} characters",
    ]
    told.append(
        _speed_in_words(settings, weights)
        if weights
        else "no time: the weights are not here, so the Solver's speed is not known before the first round"
    )
    if price is None:
        told.append("no cost: TEACHER_PRICE_PROMPT and TEACHER_PRICE_COMPLETION are not set")
    sampling = _sampling_seconds(settings, weights, attempt_tokens * settings.attempts_per_question)
    teaching = calls * CALL_SECONDS[not embedded] / settings.teacher_concurrent_workers
    return _Basis(
        attempt_tokens,
        FAILED_SHARE,
        ADMITTED_SHARE,
        calls,
        sum(tokens),
        price,
        None if sampling is None else max(sampling, teaching),  # the stages overlap
        _training_seconds(settings, weights, attempt_tokens),
        weights,
    ), told


def _measured_basis(settings: Settings, measured: RoundMetrics, weights: int) -> tuple[_Basis, list[str]]:
    """From the round before: every figure a question."""
    assert measured.train is not None
    assert measured.pool is not None
    train, questions = measured.train, max(measured.pool.questions, 1)
    calls = measured.teacher.calls
    written = measured.new_questions.get("written", 0)
    failed = 1 - train.questions_by_correct[-1] / train.questions
    training = next((span.seconds for span in measured.spans if span.name == Stage.TRL_TRAINING), 0.0)
    trained = measured.training is not None and measured.training.trained
    scored = measured.heldout.attempts / train.attempts if trained and measured.heldout else 0.0
    told = [f"as in round {measured.round}, question by question: tokens, calls, cost, time, shares"]
    if not trained:
        told.append("a training's time is not known before the first one: estimated from the size of the weights")
    tokens = _tokens_an_attempt(measured, settings)
    return _Basis(
        tokens,
        failed,
        measured.new_questions.get("admitted", 0) / written if written else ADMITTED_SHARE,
        calls / questions,
        (measured.teacher.prompt_tokens + measured.teacher.completion_tokens) / calls if calls else 0.0,
        _cost_a_call(settings, measured),
        (measured.ended_at - measured.began_at - training) / questions / (1 + scored),
        training / questions if trained else _training_seconds(settings, weights, tokens),
        weights,
    ), told


def _cost_a_call(settings: Settings, measured: RoundMetrics) -> float | None:
    if not settings.teacher_base_url:
        return 0.0
    cost, calls = measured.teacher.cost, measured.teacher.calls
    return cost / calls if cost is not None and calls else None


def _tokens_an_attempt(measured: RoundMetrics, settings: Settings) -> float:
    return measured.mean_completion_tokens or settings.solver_max_new_tokens * SHARE_OF_LONGEST


def _plan_round(settings: Settings, basis: _Basis, round_: int, questions: int, scored: int) -> RoundPlan:
    """`scored`: attempts at questions that only score."""
    trains = round_ >= settings.first_training_round
    attempts = questions * settings.attempts_per_question
    drafts = _drafts(settings, questions)
    scored += drafts * settings.generator_trials
    draft_tokens = drafts * settings.generator_max_new_tokens * SHARE_OF_LONGEST
    calls = round(questions * basis.calls_a_question) + REGRADED_A_ROUND
    seconds = None
    if basis.seconds_a_question is not None:
        share = (scored + draft_tokens / basis.attempt_tokens) / max(attempts, 1)
        seconds = questions * basis.seconds_a_question * (1 + share)
        if trains:
            used = set() if round_ == settings.first_training_round else set(range(1, round_))
            rounds = TRAIN_ON[settings.train_on](round_, used)
            seconds += questions * len(rounds) * (basis.training_seconds or 0.0)
    sizes = {"questions": questions, "attempts": attempts + scored, "training_bytes": 0}
    disk = sum(
        bytes_needed(stage, attempt_bytes=round(basis.attempt_tokens * CHARS_A_TOKEN), **sizes)
        for stage in Stage
        if stage is not Stage.TRL_TRAINING
    )
    return RoundPlan(
        round=round_,
        trains=trains,
        questions=questions,
        attempts=attempts,
        new_questions=_new_questions(settings, basis, questions),
        sampled_tokens=round((attempts + scored) * basis.attempt_tokens + draft_tokens),
        teacher_calls=calls,
        teacher_tokens=round(calls * basis.tokens_a_call),
        cost=None if basis.cost_a_call is None else calls * basis.cost_a_call,
        seconds=seconds,
        disk_bytes=disk + (basis.weights if trains else 0),
    )


def _drafts(settings: Settings, questions: int) -> int:
    """What the Generator writes in a round."""
    wanted = int((settings.new_questions_per_round or questions) * settings.generator_share)
    return len(DRAFTS) * min(DRAFTED_AHEAD * wanted, round(questions * settings.generator_share))


def _new_questions(settings: Settings, basis: _Basis, questions: int) -> int:
    return min(settings.new_questions_per_round or questions, round(questions * basis.admitted_share))


def _next_pool(settings: Settings, basis: _Basis, plan: RoundPlan) -> int:
    failed = plan.questions * basis.failed_share
    replayed = failed * settings.replay_failed_share + (plan.questions - failed) * settings.replay_other_share
    return min(plan.new_questions + round(replayed), settings.max_pool_questions or 10**12)


def _calls_of_a_question(
    settings: Settings, pool: Sequence[Question], attempt_tokens: float
) -> tuple[float, tuple[float, float]]:
    """Teacher calls a question of the pool, and a call's mean prompt and completion tokens, from the real prompts."""
    typical = sorted(pool, key=lambda question: len(question.text))[len(pool) // 2]
    attempt = "x" * round(attempt_tokens * CHARS_A_TOKEN)
    shown = ShownAttempt(attempt, Verdict.INCORRECT, "")
    prompts = {
        "grade": grade_prompt(typical, attempt),
        "analyse": analyse_prompt(typical, shown),
        "enhance": enhance_prompt(typical, shown, "x" * 200, "variant"),
        "solve": solve_prompt(typical.text),
    }
    open_share = sum(question.reference is None for question in pool) / len(pool)
    asked = settings.attempts_per_question * (open_share + (1 - open_share) * LEFT_OPEN_BY_RULES)
    written = min(1.0, (settings.new_questions_per_round or len(pool)) / ADMITTED_SHARE / len(pool))
    calls = {
        "grade": asked * (1 + CANARIES_A_BATCH / ATTEMPTS_BETWEEN_CANARIES),
        "analyse": written * FAILED_SHARE * (1 - settings.generator_share),
        "enhance": written * (1 - settings.generator_share),
        "solve": written,
    }
    total = sum(calls.values())
    sizes = {task: (len(prompt.system) + len(prompt.user)) / CHARS_A_TOKEN for task, prompt in prompts.items()}
    prompt_tokens = sum(count * sizes[task] for task, count in calls.items()) / total
    completion_tokens = sum(count * REPLY_TOKENS[task] for task, count in calls.items()) / total
    return total, (prompt_tokens, completion_tokens)


# Time from the size of the weights: operations a parameter and token are 2 forward, 6 with the gradient


def _speed(gpus: int, weights: int, operations: int) -> float:
    """Tokens a second."""
    flops = gpus * GPU_FLOPS if gpus else this_machine().cpu_count * CORE_FLOPS
    return min(MOST_TOKENS_A_SECOND, flops / (operations * max(weights / BYTES_A_PARAMETER, 1)))


def _sampling_seconds(settings: Settings, weights: int, tokens: float) -> float | None:
    return tokens / _speed(len(settings.physical_solver_gpu), weights, 2) if weights else None


def _training_seconds(settings: Settings, weights: int, attempt_tokens: float) -> float | None:
    """A question's share of a training: each distinct attempt once (DPO_ENGINE=grouped), or once a pair and side."""
    if not weights:
        return None
    n = settings.attempts_per_question
    sequences = n if settings.dpo_engine == "grouped" else 2 * min(settings.max_pairs_per_question or n * n, n * n // 4)
    tokens = MIXED_SHARE * sequences * attempt_tokens * settings.trl_num_epochs
    return tokens / _speed(min(settings.trl_num_processes, len(settings.physical_grpo_gpu)), weights, 8)


def _speed_in_words(settings: Settings, weights: int) -> str:
    where = f"{len(settings.physical_solver_gpu)} GPU" if settings.physical_solver_gpu else "the CPU"
    speed = _speed(len(settings.physical_solver_gpu), weights, 2)
    return f"the Solver samples {speed:,.0f} tokens a second on {where}: within a factor of three, from its size"
