"""New questions by who wrote them, Teacher2 or the Generator: how many were admitted, and how useful they were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

from prosetting.core.journal import Journal
from prosetting.core.state_manager import GENERATOR_DRAFTS, GENERATOR_TRAINING, GENERATOR_TRIALS
from prosetting.datasets.generator_data import Source, source_of
from prosetting.processors.question_gate import REPEATS
from prosetting.processors.question_similarity import Diversity, diversity
from prosetting.records import Verdict

BAND = (0.2, 0.8)
"""Pass rates of questions that are neither too hard nor mastered: where preference training finds most pairs."""
BINS = 8
MOST_TEXTS = 2_000
"""Of a source's admitted questions, those that its diversity is told of."""


@dataclass(frozen=True, slots=True)
class WrittenFigures:
    """What one source brought in a round.

    `refused` counts by the gate's reason, or `declined` and `failed` where nothing was written. `teacher_calls` are
    what its questions took of Teacher2, by task: the Generator's are solved only.
    """

    asked: int
    written: int
    admitted: int
    refused: dict[str, int]
    teacher_calls: dict[str, int]
    diversity: Diversity


@dataclass(frozen=True, slots=True)
class MeasuredFigures:
    """How one source's questions went in the round that played them first. `pass_rates[b]` counts those with a pass
    rate in the b-th of BINS equal parts of 0 … 1, the upper end in the last one."""

    played: int
    in_band: int
    mean_pass_rate: float
    pass_rates: list[int]


def figures_of_round(journal: Journal, round_: int) -> dict[str, Any]:
    """What a round's preparation tells of the sources, JSON-ready: of the questions that were written in it, and of
    those of the round before, which it has played."""
    return {
        "sources": {source: asdict(figures) for source, figures in written_by_source(journal, round_).items()},
        "measured": {source: asdict(figures) for source, figures in measured_by_source(journal, round_ - 1).items()},
    }


def written_by_source(journal: Journal, round_: int) -> dict[Source, WrittenFigures]:
    """By source, of those that were asked in the round. Everything written must have been put to the gate or be left
    over."""
    counts: dict[Source, Counter[str]] = {source: Counter() for source in get_args(Source)}
    for _, outcome in journal.enhancements(round_):
        written = outcome["status"] == "written"
        if written and "gate" not in outcome:
            continue  # asked early, and not needed in the end
        count = counts[source_of(outcome)]
        count["asked"] += 1
        count["written"] += written
        count["analyse"] += outcome["verdict"] == Verdict.INCORRECT.value
        count["solve"] += outcome.get("solved", int(written))
        count[f"came to {outcome['gate'] if written else outcome['status']}"] += 1
    texts: dict[Source, list[str]] = {source: [] for source in counts}
    for made in journal.admitted_with_parents(round_):
        if len(of_source := texts[source_of(made.outcome)]) < MOST_TEXTS:
            of_source.append(made.question.text)
    return {source: _written(source, count, texts[source]) for source, count in counts.items() if count}


def _written(source: Source, count: Counter[str], texts: list[str]) -> WrittenFigures:
    ends = {name.removeprefix("came to "): n for name, n in sorted(count.items()) if name.startswith("came to ")}
    admitted = ends.pop("admitted", 0)
    asked, written = count["asked"], count["written"]
    of_teacher2 = {"analyse": count["analyse"], "enhance": asked} if source == "teacher2" else {}
    return WrittenFigures(
        asked=asked,
        written=written,
        admitted=admitted,
        refused=ends,
        teacher_calls={**of_teacher2, "solve": count["solve"]},
        diversity=diversity(texts, duplicates=sum(ends.get(reason.value, 0) for reason in REPEATS), written=written),
    )


def measured_by_source(journal: Journal, round_: int) -> dict[Source, MeasuredFigures]:
    """The pass rates of the questions that were written in a round, in the round after it. None are told of a source
    that wrote nothing which was played."""
    rates: dict[Source, list[float]] = {source: [] for source in get_args(Source)}
    for made in journal.admitted_with_parents(round_):
        if made.pass_rate is not None:
            rates[source_of(made.outcome)].append(made.pass_rate)
    return {source: measured(found) for source, found in rates.items() if found}


def measured(pass_rates: list[float]) -> MeasuredFigures:
    bins = [0] * BINS
    for rate in pass_rates:
        bins[min(int(rate * BINS), BINS - 1)] += 1
    return MeasuredFigures(
        played=len(pass_rates),
        in_band=sum(BAND[0] <= rate <= BAND[1] for rate in pass_rates),
        mean_pass_rate=sum(pass_rates) / len(pass_rates) if pass_rates else 0.0,
        pass_rates=bins,
    )


def side_by_side_rows(rounds: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the report shows, a row a round and source, from the rounds of a summary: a round's questions as written,
    with their pass rates where the next round has played them. Empty for a run that has no Generator."""
    if not any("generator" in r.get("sources", {}) for r in rounds):
        return []
    measured_in = {r["round"]: r.get("measured", {}) for r in rounds}
    return [
        {
            "round": r["round"],
            "source": source,
            **written,
            "admitted_share": written["admitted"] / written["asked"] if written["asked"] else 0.0,
            "measured": measured_in.get(r["round"] + 1, {}).get(source),
        }
        for r in rounds
        for source, written in r.get("sources", {}).items()
    ]


@dataclass(frozen=True, slots=True)
class SourceCost:
    """What a source's questions have cost in all rounds: of Teacher2, and on this machine."""

    source: Source
    admitted: int
    teacher_calls: int
    teacher_tokens: int
    teacher_cost: float | None
    tokens_here: int
    seconds_here: float


def costs_of_sources(journal: Journal, rounds: list[Mapping[str, Any]]) -> list[SourceCost]:
    """By source, from the rounds of a summary. What a task of Teacher2 took is shared out by calls."""
    calls: dict[Source, Counter[str]] = {source: Counter() for source in get_args(Source)}
    admitted: Counter[str] = Counter()
    for r in rounds:
        for source, written in r.get("sources", {}).items():
            calls[source].update(written["teacher_calls"])
            admitted[source] += written["admitted"]
    taken = Counter[str]()
    costs: dict[str, float] = {}
    for task in journal.teacher_tasks():
        taken[task.task] += task.totals.prompt_tokens + task.totals.completion_tokens
        if task.totals.cost is not None:
            costs[task.task] = costs.get(task.task, 0.0) + task.totals.cost
    here = [
        record
        for r in rounds
        for stage in (GENERATOR_TRAINING, GENERATOR_DRAFTS, GENERATOR_TRIALS)
        if (record := journal.stage(r["round"], stage))
    ]
    found = []
    for source, of_source in calls.items():
        shares = {task: n / sum(each[task] for each in calls.values()) for task, n in of_source.items() if n}
        own = here if source == "generator" else []
        found.append(
            SourceCost(
                source=source,
                admitted=admitted[source],
                teacher_calls=sum(of_source.values()),
                teacher_tokens=round(sum(taken[task] * share for task, share in shares.items())),
                teacher_cost=sum(costs.get(task, 0.0) * share for task, share in shares.items()) if costs else None,
                tokens_here=sum(record.output.get("tokens", 0) for record in own),
                seconds_here=sum(record.seconds for record in own),
            )
        )
    return found
