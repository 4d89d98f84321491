"""`prosetting lineage`: one question's story, from the seed question to the pairs made of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from prosetting.cli.settings_flags import EnvFile
from prosetting.cli.status import AsJson

if TYPE_CHECKING:
    from prosetting.managers.lineage import Lineage, QuestionStory, RoundPlayed, Writing

SHOWN_CHARS = 240


def lineage(
    ctx: typer.Context,
    question_id: Annotated[str, typer.Argument(metavar="QUESTION_ID", help="An id, or its first characters.")],
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Show where a question comes from, how it was played, and what was made of it.

    \b
    Example:
      prosetting lineage 3f2a91 --workspace-dir /tmp/prosetting_workspace
    """
    import json
    from dataclasses import asdict

    from prosetting.cli.workspaces import open_journal, workspace_of
    from prosetting.managers.lineage import lineage_of

    with open_journal(workspace_of(ctx, env_file)) as journal:
        found = lineage_of(journal, question_id)
    # ASCII: what a model wrote may hold what a terminal obeys.
    typer.echo(json.dumps(asdict(found), indent=1) if as_json else "\n".join(_lines(found)))


def _lines(found: Lineage) -> Iterator[str]:
    for ancestor in found.ancestors:
        yield from _question_lines(ancestor.story)
        yield from (_short_round(played) for played in ancestor.story.rounds)
        yield ""
        yield from _writing_lines(ancestor.led_to) if ancestor.led_to else ["  ↓ (how it was written is not recorded)"]
        yield ""
    yield from _question_lines(found.story)
    for played in found.story.rounds:
        yield from _round_lines(played)
    if not found.story.rounds:
        yield "  in no pool yet"
    for writing in found.children:
        yield ""
        yield from _writing_lines(writing)
        yield from _child_lines(writing)


def _question_lines(story: QuestionStory) -> Iterator[str]:
    question = story.question
    word = "written" if question.parent_id else "read"
    yield f"{question.question_id} · {question.kind} · {word} in round {story.born_in_round}"
    yield f"  question:  {_shown(question.text)}"
    yield f"  reference: {_shown(question.reference) if question.reference is not None else '(none)'}"


def _short_round(played: RoundPlayed) -> str:
    return f"  round {played.round} ({played.reason.replace('_', ' ')}): {_pass_rate(played)}"


def _pass_rate(played: RoundPlayed) -> str:
    decided = len(played.correct) + len(played.incorrect)
    if not (decided or played.unknown or played.ungraded):
        return "not played yet"
    if played.pass_rate is None:
        return "no attempt decided"
    return f"pass rate {played.pass_rate:.2f}, {len(played.correct)} of {decided} correct"


def _round_lines(played: RoundPlayed) -> Iterator[str]:
    yield _short_round(played)
    for name in ("correct", "incorrect", "unknown", "ungraded"):
        if numbers := getattr(played, name):
            yield f"    {name + ':':<11}attempts {', '.join(map(str, numbers))}"
    yield f"    pairs:     {_pairs(played.pairs)}"


def _pairs(pairs: list[tuple[int, int]]) -> str:
    """All pairs of a Cartesian product as that product, others one by one."""
    if not pairs:
        return "none"
    chosen, rejected = ({pair[side]: None for pair in pairs} for side in (0, 1))
    if len(pairs) == len(chosen) * len(rejected):
        sides = (", ".join(map(_attempt_name, numbers)) for numbers in (chosen, rejected))
        return f"{len(pairs)}, chosen {' × rejected '.join(sides)}"
    return f"{len(pairs)}, chosen×rejected " + ", ".join(f"{_attempt_name(c)}×{_attempt_name(r)}" for c, r in pairs)


def _attempt_name(number: int) -> str:
    from prosetting.records import REFERENCE_ATTEMPT

    return "(worked solution)" if number == REFERENCE_ATTEMPT else str(number)


def _writing_lines(writing: Writing) -> Iterator[str]:
    asked = f"a question of kind {writing.kind}" if writing.kind else "a question"
    yield f"  ↓ round {writing.round}: {writing.writer} was asked for {asked}"
    if attempt := writing.shown:
        by = f" by {attempt.decided_by}" if attempt.decided_by else ""
        why = f" ({_shown(attempt.diagnosis)})" if attempt.diagnosis else ""
        yield f"    attempt {attempt.attempt}, {attempt.verdict or 'ungraded'}{by}{why}: {_shown(attempt.response)}"
    if writing.analysis:
        yield f"    analysis:  {_shown(writing.analysis)}"
    if writing.status != "written":
        yield f"    {writing.status}" + (f": {_shown(writing.failure)}" if writing.failure else "")
    else:
        detail = f" ({_shown(writing.gate_detail)})" if writing.gate_detail else ""
        yield f"    gate:      {_shown(writing.gate).replace('_', ' ') or 'not asked yet'}{detail}"


def _child_lines(writing: Writing) -> Iterator[str]:
    if writing.new_text:
        name = f"{writing.admitted_id} " if writing.admitted_id else ""
        yield f"    → {name}{_shown(writing.new_text)}"
        yield f"      reference: {_shown(writing.new_reference)}"


def _shown(text: str) -> str:
    """One harmless line of at most SHOWN_CHARS: the beginning and the end, where an answer stands."""
    from prosetting.core.text import printable

    tail = SHOWN_CHARS // 3
    line = " ".join(printable(text[: 4 * SHOWN_CHARS]).split())
    if len(text) <= 4 * SHOWN_CHARS and len(line) <= SHOWN_CHARS:
        return line
    end = " ".join(printable(text[-4 * SHOWN_CHARS :]).split())
    return f"{line[: SHOWN_CHARS - tail - 3]} … {end[-tail:]}"
