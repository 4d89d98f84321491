"""`prosetting grade`: verdicts on recorded attempts, by the same rules and teacher that a run grades with."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, get_args

import typer

from prosetting.cli.settings_flags import EnvFile, load
from prosetting.errors import ConfigError, DataError

if TYPE_CHECKING:
    import asyncio

    from prosetting.config import Settings
    from prosetting.core.progress import Progress
    from prosetting.processors.answer_verifier import AnswerVerifier
    from prosetting.processors.reward_function import RewardFunction
    from prosetting.processors.teacher_judge import Decision, TeacherJudge
    from prosetting.records import Question, QuestionId

ROWS_AT_A_TIME = 512
"""Held in memory together; the teacher's calls of these run side by side."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the file: all its fields, and what is graded of them."""

    fields: dict[str, Any]
    question: Question
    response: str

    @property
    def key(self) -> tuple[QuestionId, str | None, str]:
        """What the verdict depends on."""
        return self.question.question_id, self.question.reference, self.response


def grade(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="Rows with question, reference and response.")],
    rules_only: Annotated[
        bool, typer.Option("--rules-only", help="Ask no teacher; what rules leave open is unknown.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Write here, whole or not at all. Default: stdout.")] = None,
    env_file: EnvFile = None,
) -> None:
    """Grade recorded attempts: each row again, in order, with `verdict` and `decided_by`.

    REWARD_FUNCTION, if set, decides first; then the rules; then the teacher. The verdict is correct, incorrect or
    unknown.

    \b
    Example:
      prosetting grade attempts.jsonl --rules-only --out graded.jsonl
    """
    from prosetting.cli.logs import log_to_stderr
    from prosetting.records import DecidedBy, Verdict

    settings = load(ctx, env_file, need_model=False).settings
    total = count_rows(file)
    with log_to_stderr() as log:
        counts = _grade_file(file, total, out, settings, rules_only=rules_only)
        verdicts = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict)
        decided = ", ".join(f"{counts[who]} by {who}" for who in get_args(DecidedBy) if counts[who])
        log.info("%d rows: %s · %s", total, verdicts, decided or "none decided")


@dataclass(frozen=True, slots=True)
class _Cascade:
    """Who decides, in this order; `judge` None leaves to `unknown` what the others leave open."""

    reward_function: RewardFunction | None
    verifier: AnswerVerifier
    judge: TeacherJudge | None


def _grade_file(file: Path, total: int, out: Path | None, settings: Settings, *, rules_only: bool) -> Counter[str]:
    """How many rows have which verdict, and who decided the correct and incorrect ones."""
    from prosetting.records import Verdict

    counts: Counter[str] = Counter()
    with _output(out) as stream:
        for row, decision in graded_rows(file, total, settings, rules_only=rules_only):
            graded = row.fields | {"verdict": decision.verdict.value, "decided_by": decision.decided_by}
            # ASCII: a response may hold what no encoding takes, such as half of a surrogate pair.
            stream.write(json.dumps(graded) + "\n")
            counts[decision.verdict] += 1
            counts[decision.decided_by] += decision.verdict is not Verdict.UNKNOWN
    return counts


def graded_rows(file: Path, total: int, settings: Settings, *, rules_only: bool) -> Iterator[tuple[Row, Decision]]:
    """The rows of a file in order, each with its verdict. `total` is how many there are, for the progress."""
    import asyncio

    from prosetting.core.progress import Progress

    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        cascade = _open_cascade(stack, runner, settings, rules_only=rules_only)
        progress = Progress("graded", total)
        rows = read_rows(file)
        for number in count():
            if not (chunk := list(islice(rows, ROWS_AT_A_TIME))):
                break
            decide = _decide(chunk, cascade, settings.teacher_concurrent_workers, f"grade-{number}", progress)
            yield from zip(chunk, runner.run(decide), strict=True)


def _open_cascade(stack: ExitStack, runner: asyncio.Runner, settings: Settings, *, rules_only: bool) -> _Cascade:
    import tempfile

    from prosetting.managers.open_teachers import check_teachers, open_teachers
    from prosetting.processors.answer_verifier import AnswerVerifier
    from prosetting.processors.reward_function import RewardFunction, check_reward_function
    from prosetting.processors.teacher_judge import TeacherJudge

    spec, reward_function = settings.reward_function, None
    if spec:
        check_reward_function(spec)
        reward_function = stack.enter_context(RewardFunction(spec))
    verifier = stack.enter_context(AnswerVerifier())
    if rules_only:
        return _Cascade(reward_function, verifier, None)
    check_teachers(settings, runner)
    log_file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "embedded_teacher.log"
    teacher, _ = stack.enter_context(open_teachers(settings, runner, log_file=log_file, commits=None))
    return _Cascade(reward_function, verifier, TeacherJudge(teacher, verifier, settings.seed))


async def _decide(
    rows: Sequence[Row], cascade: _Cascade, workers: int, name: str, progress: Progress
) -> list[Decision]:
    """The cascade of a run: your function, the rules, the teacher for what they leave open. Equal rows count once."""
    from prosetting.core.concurrency import for_each
    from prosetting.processors.reward_calculator import decide_without_teacher
    from prosetting.processors.teacher_judge import Decision
    from prosetting.records import Trajectory, Verdict

    decisions: dict[tuple[QuestionId, str | None, str], Decision] = {}
    left_open: dict[tuple[QuestionId, str | None, str], Row] = {}
    for row in rows:
        if row.key in decisions or row.key in left_open:
            continue
        attempt = Trajectory(0, row.question.question_id, 0, row.response, "stop", 0)
        found = decide_without_teacher(row.question, attempt, cascade.verifier, cascade.reward_function)
        if found is not None:
            decisions[row.key] = found
        else:
            left_open[row.key] = row
    progress.advance(sum(row.key in decisions for row in rows))
    judge = cascade.judge
    if judge is not None and left_open:
        await judge.check(name, lambda check: None)

    async def ask(row: Row) -> None:
        decisions[row.key] = (
            await judge.decide(row.question, row.response)
            if judge is not None
            else Decision(Verdict.UNKNOWN, "rules", "the rules abstain")
        )
        progress.advance(sum(row.key == other.key for other in rows))

    await for_each(list(left_open.values()), ask, limit=workers)
    return [decisions[row.key] for row in rows]


def count_rows(file: Path) -> int:
    """How many rows a file has. Raises DataError, before anything is spent, for a bad row or none."""
    total = sum(1 for _ in read_rows(file))
    if not total:
        raise _wrong(str(file), "no rows")
    return total


def read_rows(file: Path) -> Iterator[Row]:
    """The rows of a JSON Lines file, one at a time; blank lines are passed over.

    Raises DataError for a file that is not there, and for the first line that is not such a row.
    """
    if not file.is_file():
        raise DataError(f"there is no file {file}", next_step="check the path; it must be a .jsonl file on disk")
    with file.open("rb") as stream:
        for number, line in enumerate(_lines(stream), start=1):
            if line.strip():
                yield _row(line, f"{file}, line {number}")


def _lines(stream: Iterable[bytes]) -> Iterator[bytes]:
    for number, line in enumerate(stream):
        yield line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line


def _row(line: bytes, where: str) -> Row:
    from prosetting.records import Question, question_id_of

    try:
        fields = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", error)
        raise DataError(f"{where}: not JSON ({reason})", next_step="write one JSON object a line, in UTF-8") from None
    if not isinstance(fields, dict):
        raise _wrong(where, f"a {type(fields).__name__}, not an object")
    for name in ("question", "response"):
        if name not in fields:
            raise _wrong(where, f"no field {name!r}; it has {', '.join(map(repr, fields)) or 'none'}")
        if not isinstance(fields[name], str):
            raise _wrong(where, f"{name!r} is not text")
    reference = fields.get("reference")
    if isinstance(reference, bool) or not isinstance(reference, str | int | float | None):
        raise _wrong(where, "'reference' is neither text nor a number nor null")
    text = _sound(fields["question"])
    reference = _sound(str(reference)) if reference is not None and str(reference).strip() else None
    return Row(fields, Question(question_id_of(text), text, reference), _sound(fields["response"]))


def _wrong(where: str, what: str) -> DataError:
    return DataError(f"{where}: {what}", next_step="each row needs question, response and, where known, reference")


def _sound(text: str) -> str:
    """`text` without halves of surrogate pairs, which JSON may carry and nothing else takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


@contextmanager
def _output(out: Path | None) -> Iterator[TextIO]:
    from prosetting.core.artifacts import replace_atomically

    if out is None:
        yield sys.stdout
        return
    next_step = "set --out to a file in a folder that you may write"
    if out.is_dir():
        raise ConfigError(f"{out} is a folder", next_step=next_step)
    try:
        with replace_atomically(out) as temporary, temporary.open("w", encoding="utf-8") as stream:
            yield stream
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror or error}", next_step=next_step) from error
