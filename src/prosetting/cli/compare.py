"""`prosetting compare`: two runs, paired by question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prosetting.cli.status import AsJson

if TYPE_CHECKING:
    from prosetting.evaluation.comparison import Comparison
    from prosetting.managers.compare import RunsCompared, Side

HEAD = ("Questions of", "number", "A", "B", "B - A", "95 % interval", "better", "worse", "")
Round = Annotated[int | None, typer.Option(min=0, help="The round to compare; 0 is the base. Default: the last one.")]


def compare(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help="A workspace.")],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="Another one, or the same with other rounds.")],
    round_a: Round = None,
    round_b: Round = None,
    as_json: AsJson = False,
) -> None:
    """Compare the weights of two runs on the questions that both were scored on, in pairs, with a 95 % interval.

    \b
    Example:
      prosetting compare runs/demo runs/demo-control
      prosetting compare runs/demo runs/demo --round-a 3 --round-b 5
    """
    import json
    from contextlib import ExitStack
    from dataclasses import asdict

    from prosetting.cli.workspaces import open_journal
    from prosetting.core.text import printable
    from prosetting.core.workspace import Workspace
    from prosetting.managers.compare import Run, compare_runs

    with ExitStack() as stack:
        runs = []
        for folder, round_ in ((run_a, round_a), (run_b, round_b)):
            workspace = Workspace(folder.absolute(), folder.absolute() / "logs")
            runs.append(Run(workspace, stack.enter_context(open_journal(workspace)), round_))
        found = compare_runs(*runs)
    typer.echo(json.dumps(asdict(found), indent=1) if as_json else "\n".join(map(printable, _lines(found))))


def _lines(found: RunsCompared) -> Iterator[str]:
    yield from (_side(name, side) for name, side in (("A", found.a), ("B", found.b)))
    yield ""
    rows: list[tuple[str, ...]] = [HEAD]
    for name, one in (("VALIDATION_DATA_FILE", found.heldout), ("EVAL_FILES", found.reported)):
        if one:
            rows.append(_row(name, one))
    yield from _aligned(rows)
    yield ""
    length = max(len(found.a.curve), len(found.b.curve))
    rounds = ["base", *(f"round {number}" for number in range(1, length))]
    curves = [(name, *map(_share, side.curve)) for name, side in (("A", found.a), ("B", found.b))]
    yield from _aligned([("pass@1", *rounds), *((*curve, *["–"] * (1 + length - len(curve))) for curve in curves)])
    yield ""
    yield "Settings that differ" if found.settings else "No setting that decides what is computed differs."
    settings = [(_typed(name), _shown(a), _shown(b)) for name, (a, b) in found.settings.items()]
    yield from _aligned([("", "A", "B"), *settings] if settings else [])


def _side(name: str, side: Side) -> str:
    from prosetting.core.progress import shown_time

    made = f"weights of round {side.made_in}" if side.made_in else "untrained weights"
    tokens = side.teacher.prompt_tokens + side.teacher.completion_tokens
    cost = "" if side.teacher.cost is None else f", cost {side.teacher.cost:,.2f}"
    spent = f"{shown_time(side.seconds)}, {side.teacher.calls:,} teacher requests, {tokens:,} tokens{cost}"
    return f"{name}  {side.workspace} after round {side.round} ({made}); the whole run: {spent}"


def _row(name: str, one: Comparison) -> tuple[str, ...]:
    word = "B is better" if one.is_better else "B is worse" if one.is_worse else "no sure difference"
    interval = f"[{one.low:+.3f}, {one.high:+.3f}]"
    counts = (str(one.better), str(one.worse))
    return (name, str(one.questions), f"{one.a:.3f}", f"{one.b:.3f}", f"{one.change:+.3f}", interval, *counts, word)


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *rest = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join([f"  {first}", *rest]).rstrip()


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _typed(name: str) -> str:
    from prosetting.config import Settings, env_name

    return env_name(name) if name in Settings.model_fields else name


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else "(empty)" if value is None else str(value)
