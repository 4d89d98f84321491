"""`prosetting grade`: verdicts on recorded attempts, by the same rules and teacher that a run grades with."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from prosetting.cli.settings_flags import EnvFile, load
from prosetting.errors import ConfigError, DataError

if TYPE_CHECKING:
    from prosetting.config import Settings
    from prosetting.processors.answer_verifier import AnswerVerifier
    from prosetting.processors.reward_calculator import Decision
    from prosetting.records import Question
    from prosetting.teachers.base import Teacher

ROWS_AT_A_TIME = 512
"""Held in memory together; the teacher's calls of these run side by side."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the file: all its fields, and what is graded of them."""

    fields: dict[str, Any]
    question: Question
    response: str


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

    A row without a reference goes to the teacher. The verdict is correct, incorrect or unknown.

    \b
    Example:
      prosetting grade attempts.jsonl --rules-only --out graded.jsonl
    """
    from prosetting.cli.logs import log_to_stderr
    from prosetting.records import Verdict

    settings = load(ctx, env_file, need_model=False).settings
    total = sum(1 for _ in read_rows(file))
    if not total:
        raise _wrong(str(file), "no rows")
    with log_to_stderr() as log:
        counts = _grade_file(file, total, out, settings, rules_only=rules_only)
        verdicts = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict)
        log.info("%d rows: %s · %d by rules, %d by teacher1", total, verdicts, counts["rules"], counts["teacher1"])


def _grade_file(file: Path, total: int, out: Path | None, settings: Settings, *, rules_only: bool) -> Counter[str]:
    """How many rows have which verdict, and who decided the correct and incorrect ones."""
    import asyncio
    import tempfile

    from prosetting.core.progress import Progress
    from prosetting.managers.open_teachers import check_teachers, open_teachers
    from prosetting.processors.answer_verifier import AnswerVerifier
    from prosetting.records import Verdict

    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        teacher: Teacher | None = None
        if not rules_only:
            check_teachers(settings, runner)
            log_file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "embedded_teacher.log"
            opened = open_teachers(settings, runner, log_file=log_file, ledger=None)
            teacher = stack.enter_context(opened)[0]
        verifier = stack.enter_context(AnswerVerifier())
        stream = stack.enter_context(_output(out))
        progress = Progress("graded", total)
        rows = read_rows(file)
        while chunk := list(islice(rows, ROWS_AT_A_TIME)):
            decisions = runner.run(_decide(chunk, verifier, teacher, settings.teacher_concurrent_workers, progress))
            for row, decision in zip(chunk, decisions, strict=True):
                graded = row.fields | {"verdict": decision.verdict.value, "decided_by": decision.decided_by}
                # ASCII: a response may hold what no encoding takes, such as half of a surrogate pair.
                stream.write(json.dumps(graded) + "\n")
                counts[decision.verdict] += 1
                counts[decision.decided_by] += decision.verdict is not Verdict.UNKNOWN
    return counts


async def _decide(
    rows: Sequence[Row], verifier: AnswerVerifier, teacher: Teacher | None, workers: int, progress: Any
) -> list[Decision]:
    """The cascade of a run: rules where there is a reference, the teacher for what they leave open."""
    from prosetting.core.concurrency import for_each
    from prosetting.processors.reward_calculator import decide_by_rules, decide_by_teacher

    decisions = []
    for row in rows:
        decisions.append(decide_by_rules(verifier, row.question, row.response))
        progress.advance(decisions[-1] is not None)

    async def ask(index: int) -> None:
        decisions[index] = await decide_by_teacher(teacher, rows[index].question, rows[index].response)
        progress.advance(1)

    await for_each([i for i, decision in enumerate(decisions) if decision is None], ask, limit=workers)
    return [decision for decision in decisions if decision is not None]


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
