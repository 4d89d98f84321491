"""`prosetting eval`: score a model on files of questions, the way a run scores its checkpoints."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prosetting.cli.settings_flags import EnvFile, load
from prosetting.cli.status import AsJson
from prosetting.errors import SolverError

if TYPE_CHECKING:
    from prosetting.config import Settings
    from prosetting.core.journal import Journal
    from prosetting.records import HeldoutScore, Question

BASE_ROUND = 0
"""Attempts are drawn as those of a run's untrained base, so the same settings give the same score."""


def evaluate(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Hugging Face model folder, or a hub name.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Files of questions, .json or .jsonl.")],
    attempts: Annotated[
        int | None, typer.Option("--attempts", min=1, help="Sampled attempts a question. Default: EVAL_ATTEMPTS, 8.")
    ] = None,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Score a model on questions: sampled pass@1 with its 95 % interval, pass@k, greedy.

    \b
    Example:
      prosetting eval runs/demo/checkpoints/merged_solver_r5 heldout.jsonl --attempts 8 --json
    """
    import json

    from prosetting.cli.logs import log_to_stderr
    from prosetting.core.machine import fit_to_machine, this_machine

    more = {"SOLVER_MODEL_PATH": model} | ({"EVAL_ATTEMPTS": str(attempts)} if attempts else {})
    settings, notices = fit_to_machine(load(ctx, env_file, more=more), this_machine())
    with log_to_stderr() as log:
        for notice in notices:
            log.info("notice: %s", notice)
        results = _evaluate(settings, files)
    if as_json:
        content = {"model": model, "attempts": settings.eval_attempts, "seed": settings.seed, "files": results}
        typer.echo(json.dumps(content, ensure_ascii=False, indent=1))
        return
    for result in results:
        typer.echo(_text(result))


def _evaluate(settings: Settings, files: list[Path]) -> list[dict[str, Any]]:
    import asyncio

    from prosetting.collectors.data_normalizer import load_questions
    from prosetting.collectors.solver_engines import ENGINES
    from prosetting.collectors.trajectory_collector import TrajectoryCollector
    from prosetting.core.group_commit import GroupCommit
    from prosetting.core.journal import Journal
    from prosetting.managers.heldout import score_heldout
    from prosetting.managers.open_teachers import check_teachers, open_teachers
    from prosetting.processors.answer_verifier import AnswerVerifier
    from prosetting.processors.reward_calculator import RewardCalculator
    from prosetting.processors.reward_function import RewardFunction, check_reward_function

    if settings.reward_function:
        check_reward_function(settings.reward_function)
    engine = ENGINES[settings.solver_engine]
    engine.check(settings)
    questions_of = {file: load_questions(file) for file in files}
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        check_teachers(settings, runner)
        scratch = stack.enter_context(_scratch())
        log_file = scratch / "embedded_teacher.log"
        teacher, _ = stack.enter_context(open_teachers(settings, runner, log_file=log_file, commits=None))
        verifier = stack.enter_context(AnswerVerifier())
        spec = settings.reward_function
        reward_function = stack.enter_context(RewardFunction(spec)) if spec else None
        solver = stack.enter_context(closing(engine.open(settings, scratch, settings.solver_model_path)))
        results = []
        for number, (file, questions) in enumerate(questions_of.items()):
            journal = stack.enter_context(Journal(scratch / f"{number}.db"))
            commits = GroupCommit(journal)
            grader = RewardCalculator(
                journal,
                commits,
                verifier,
                teacher,
                reward_function=reward_function,
                concurrent_workers=settings.teacher_concurrent_workers,
                run_seed=settings.seed,
            )
            collector = TrajectoryCollector(commits, settings)
            scoring = score_heldout(journal, collector, grader, settings, BASE_ROUND, questions, lambda: solver)
            results.append(_result(file, questions, journal, runner.run(scoring)))
    return results


@contextmanager
def _scratch() -> Iterator[Path]:
    """A temporary folder, kept when the Solver fails: the error points to the log in it."""
    folder = Path(tempfile.mkdtemp(prefix="prosetting-eval-"))
    try:
        yield folder
    except SolverError:
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _result(file: Path, questions: list[Question], journal: Journal, score: HeldoutScore | None) -> dict[str, Any]:
    from dataclasses import asdict

    counts = journal.verdict_counts("heldout", BASE_ROUND)
    decided = {who: sum(n for (v, by), n in counts.items() if by == who and v != "unknown") for who in _WHO}
    unknown = sum(count for (verdict, _), count in counts.items() if verdict == "unknown")
    head = {"file": str(file), "questions": len(questions), "decided_by": decided, "unknown": unknown}
    return head | {"heldout": asdict(score) if score else None}


_WHO = ("rules", "teacher1")


def _text(result: dict[str, Any]) -> str:
    head = f"{result['file']}: {result['questions']} questions"
    score = result["heldout"]
    if score is None:
        return f"{head}\n  no attempt could be graded"
    low, high = score["pass_at_1_ci"]
    decided = result["decided_by"]
    return "\n".join(
        [
            f"{head}, {score['samples']} sampled attempts",
            f"  pass@1  {score['pass_at_1']:.3f}  [{low:.3f}, {high:.3f}]  sampled, 95 % interval",
            f"  pass@k  {score['pass_at_k']:.3f}",
            f"  greedy  {score['greedy']:.3f}",
            f"  {decided['rules']} verdicts by rules, {decided['teacher1']} by Teacher1, {result['unknown']} unknown",
        ]
    )
