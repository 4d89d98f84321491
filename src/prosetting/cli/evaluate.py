"""`prosetting eval`: score a model on questions, the way a run scores its checkpoints, or recorded attempts."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prosetting.cli.settings_flags import EnvFile, load
from prosetting.cli.status import AsJson
from prosetting.errors import ConfigError, SolverError

if TYPE_CHECKING:
    from prosetting.config import Settings
    from prosetting.core.journal import Journal
    from prosetting.evaluation.benchmark import QuestionScores
    from prosetting.records import HeldoutScore, Question

BASE_ROUND = 0
"""Attempts are drawn as those of a run's untrained base, so the same settings give the same score."""
Scored = tuple[dict[str, Any], "QuestionScores"]
"""A file's line of results and, question by question, what they rest on."""


def evaluate(
    ctx: typer.Context,
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Hugging Face model folder, or a hub name.")
    ] = None,
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE…", help="Files of questions, .json or .jsonl.")
    ] = None,
    attempts: Annotated[
        int | None, typer.Option("--attempts", min=1, help="Sampled attempts a question. Default: EVAL_ATTEMPTS, 8.")
    ] = None,
    recorded: Annotated[
        list[Path] | None,
        typer.Option(
            "--recorded", help="Score these attempts instead: .jsonl rows with question, reference, response."
        ),
    ] = None,
    rules_only: Annotated[
        bool, typer.Option("--rules-only", help="With --recorded: ask no teacher; what rules leave open is unknown.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the results here as JSON, and each question beside it as JSONL.")
    ] = None,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Score a model on questions: mean@k, pass@k, majority@k and greedy, with 95 % intervals.

    Without a FILE the files are those of EVAL_FILES. GSM8K, MATH-500, AIME and any .jsonl with question and answer.

    \b
    Example:
      prosetting eval runs/demo/checkpoints/merged_solver_r5 heldout.jsonl --attempts 8 --out scores.json
      prosetting eval --recorded attempts.jsonl --rules-only --json
    """
    from prosetting.cli.logs import log_to_stderr
    from prosetting.core.machine import fit_to_machine, this_machine

    _check_arguments(model, recorded, rules_only=rules_only)
    more = {"SOLVER_MODEL_PATH": model or ""} | ({"EVAL_ATTEMPTS": str(attempts)} if attempts else {})
    loaded = load(ctx, env_file, need_model=not recorded, more=more)
    settings, notices = (loaded.settings, ()) if recorded else fit_to_machine(loaded, this_machine())
    with log_to_stderr() as log:
        for notice in notices:
            log.info("notice: %s", notice)
        if recorded:
            scored = [_score_recorded(file, settings, rules_only=rules_only) for file in recorded]
        else:
            scored = _evaluate(settings, files or _eval_files(settings))
    given = {"attempts": settings.eval_attempts} if model else {"recorded": True}
    content = {"model": model, **given, "seed": settings.seed, "files": [result for result, _ in scored]}
    if out:
        _write(out, content, scored)
    _print(content, as_json=as_json)


def _check_arguments(model: str | None, recorded: list[Path] | None, *, rules_only: bool) -> None:
    if (model is None) == (not recorded):
        raise ConfigError(
            "prosetting eval needs either a model, or attempts that were recorded",
            next_step="prosetting eval MODEL FILE…, or prosetting eval --recorded ATTEMPTS.jsonl",
        )
    if rules_only and not recorded:
        raise ConfigError("--rules-only goes with --recorded", next_step="leave it out, or give --recorded")


def _eval_files(settings: Settings) -> list[Path]:
    if not settings.eval_files:
        raise ConfigError("there is no file to score on", next_step="give a FILE after the model, or set EVAL_FILES")
    return [Path(file) for file in settings.eval_files]


def _evaluate(settings: Settings, files: list[Path]) -> list[Scored]:
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
            heldout = runner.run(scoring)
            results.append(_result(file, questions, journal, heldout, settings.seed))
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


def _result(file: Path, questions: list[Question], journal: Journal, score: HeldoutScore | None, seed: int) -> Scored:
    from dataclasses import asdict

    from prosetting.managers.heldout import question_scores

    scores = question_scores(journal, "heldout", BASE_ROUND, questions)
    counts = Counter[str]()
    for (verdict, by), count in journal.verdict_counts("heldout", BASE_ROUND).items():
        counts[by if verdict != "unknown" else verdict] += count
    result = _told(file, len(questions), counts, scores, seed)
    return result | {"heldout": asdict(score) if score else None}, scores


def _score_recorded(file: Path, settings: Settings, *, rules_only: bool) -> Scored:
    from prosetting.cli.grade import count_rows, graded_rows
    from prosetting.evaluation.benchmark import QuestionScores
    from prosetting.processors.answer_vote import vote_of
    from prosetting.records import Grade, QuestionId, Trajectory, Verdict

    scores = QuestionScores(vote_of)
    counts = Counter[str]()
    attempts = Counter[QuestionId]()
    for row, (verdict, by, diagnosis) in graded_rows(file, count_rows(file), settings, rules_only=rules_only):
        question_id = row.question.question_id
        number = attempts[question_id]
        attempts[question_id] += 1
        attempt = Trajectory(BASE_ROUND, question_id, number, row.response, "stop", 0)
        scores.add(row.question, attempt, Grade(BASE_ROUND, question_id, number, verdict, by, diagnosis))
        counts[by if verdict is not Verdict.UNKNOWN else "unknown"] += 1
    return _told(file, scores.questions, counts, scores, settings.seed), scores


def _told(file: Path, questions: int, counts: Counter[str], scores: QuestionScores, seed: int) -> dict[str, Any]:
    from dataclasses import asdict
    from typing import get_args

    from prosetting.records import DecidedBy

    return {
        "file": str(file),
        "questions": questions,
        "sampled": scores.sampled,
        "decided_by": {who: counts[who] for who in get_args(DecidedBy)},
        "unknown": counts["unknown"],
        "metrics": [asdict(metric) for metric in scores.metrics(seed)],
    }


def _write(out: Path, content: dict[str, Any], scored: list[Scored]) -> None:
    """`out` and, beside it, `….questions.jsonl` with a row a question; both whole or not at all."""
    import json

    from prosetting.core.artifacts import replace_atomically, write_json

    try:
        with replace_atomically(out.with_suffix(".questions.jsonl")) as temporary, temporary.open("w") as stream:
            for result, scores in scored:
                # ASCII: a response may hold what no encoding takes.
                stream.writelines(json.dumps({"file": result["file"], **row}) + "\n" for row in scores.rows())
        write_json(out, content)
    except OSError as error:
        raise ConfigError(
            f"{out} cannot be written: {error.strerror or error}",
            next_step="set --out to a file in a folder that you may write",
        ) from error


def _print(content: dict[str, Any], *, as_json: bool) -> None:
    import json

    from prosetting.evaluation.benchmark import table

    if as_json:
        typer.echo(json.dumps(content, ensure_ascii=False, indent=1))
        return
    typer.echo("\n".join(table({**result, "task": result["file"]} for result in content["files"])))
    for result in content["files"]:
        typer.echo(_footnote(result))


def _footnote(result: dict[str, Any]) -> str:
    decided = result["decided_by"]
    own = f"{decided['reward_function']} by your function, " if decided["reward_function"] else ""
    return (
        f"{result['file']}: {result['sampled']} sampled attempts decided · verdicts: {own}{decided['rules']} by rules,"
        f" {decided['teacher1']} by Teacher1, {result['unknown']} unknown, which count for nothing"
    )
