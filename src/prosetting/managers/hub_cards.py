"""What the cards of exported weights and data tell: settings, figures, lineage, licence. Texts only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prosetting import __version__
from prosetting.core.model_folder import is_hub_name
from prosetting.datasets.data_saver import SIDES
from prosetting.managers.metrics import RoundMetrics
from prosetting.managers.round_gate import leaves_kept

KINDS = ("pairs", "by_question", "questions")
_METHOD = """\
It attempted every question several times, rules and a teacher graded the attempts, and it was trained with TRL on
correct × incorrect attempts of one question. Teacher2 wrote each next round's questions from what went wrong."""
_CONTENT = """\
- `pairs`: `prompt`, `chosen`, `rejected`, with `question_id`, `chosen_attempt`, `rejected_attempt`, `round`.
- `by_question`: the same pairs, a row a question, each completion once.
- `questions`: a row for each question of each round's pool.

Attempts are a model's own, and most references of later rounds are a teacher's: wrong ones are among them.

## Lineage

`parent_id` names the question that a new one was written from, down to the seed questions (`kind`: seed)."""


@dataclass(frozen=True, slots=True)
class Story:
    """What both cards are written from. `settings` name nothing of this machine."""

    name: str
    licence: str
    last_round: int
    settings: Mapping[str, Any]
    metrics: Sequence[RoundMetrics]
    forks: Sequence[str]


def model_card(story: Story, trained_in_round: int) -> str:
    """README.md of the weights; `trained_in_round` is the last round that changed them."""
    from huggingface_hub import EvalResult, ModelCardData

    base = str(story.settings.get("solver_model_path", ""))
    results = [
        EvalResult(
            task_type="text-generation",
            task_name="Held-out questions",
            dataset_type="held-out",
            dataset_name="held-out questions of the run",
            metric_type=metric,
            metric_value=round(value, 4),
        )
        for metric, value in _heldout_figures(story.metrics)
    ]
    data = ModelCardData(
        license=story.licence,
        library_name="transformers",
        pipeline_tag="text-generation",
        base_model=base if is_hub_name(base) else None,
        tags=["prosetting", "trl", "dpo", "reasoning", "self-training"],
        model_name=story.name,
        eval_results=results or None,
    )
    head = f"The Solver after round {story.last_round} of a ProSetting run (version {__version__}), from `{base}`."
    lineage = ["## Lineage", "", f"- base: `{base}`", *_trainings(story.metrics, trained_in_round)]
    lineage += [f"- forked from {line}" for line in story.forks]
    return _card(data.to_yaml(), story, [head, _METHOD, *_licence_lines(story.licence), *lineage])


def dataset_card(story: Story, rows: Mapping[tuple[str, str], int]) -> str:
    """README.md of the data; `rows` by kind and side."""
    from huggingface_hub import DatasetCardData

    configs: list[dict[str, Any]] = []
    for kind in KINDS:
        sides = [side for side in SIDES if (kind, side) in rows]
        files = [{"split": side, "path": f"data/{kind}/{side}-*.parquet"} for side in sides]
        configs += [{"config_name": kind, "data_files": files}] if files else []
    configs[0]["default"] = True
    data = DatasetCardData(
        license=story.licence,
        task_categories=["text-generation"],
        tags=["prosetting", "preference", "dpo", "synthetic"],
        pretty_name=story.name,
        configs=configs,
    )
    counts = ["| Configuration | Split | Rows |", "|---|---|---|"]
    counts += [f"| `{kind}` | {side} | {count:,} |" for (kind, side), count in sorted(rows.items())]
    head = f"Preference pairs and questions of {story.last_round} rounds of a ProSetting run (version {__version__})."
    body = [head, "", *_licence_lines(story.licence), "## Content", "", *counts, "", _CONTENT]
    return _card(data.to_yaml(), story, [*body, *(f"Forked from {line}." for line in story.forks)])


def _card(yaml: str, story: Story, body: Sequence[str]) -> str:
    lines = ["---", yaml, "---", "", f"# {story.name}", "", *body, "", *_figures(story.metrics), "", "## Settings", ""]
    settings = json.dumps(story.settings, ensure_ascii=True, indent=1)
    return "\n".join([*lines, "```json", settings.replace("```", "` ` `"), "```", ""])


def _licence_lines(licence: str) -> list[str]:
    if licence != "other":
        return [""]
    return ["", "The licence is not settled: this was exported as `other`. Set it here before you publish it.", ""]


def _heldout_figures(metrics: Sequence[RoundMetrics]) -> Iterator[tuple[str, float]]:
    heldout = metrics[-1].heldout if metrics else None
    if heldout and heldout.pass_at_1:
        yield "pass@1", heldout.pass_at_1.value
    if heldout and heldout.pass_at_k and heldout.k > 1:
        yield f"pass@{heldout.k}", heldout.pass_at_k.value


def _trainings(metrics: Sequence[RoundMetrics], last: int) -> Iterator[str]:
    for each in metrics:
        if _changed_weights(each) and each.training and each.round <= last:
            yield f"- round {each.round}: {each.training.reason}, {each.training.steps} steps"


def _changed_weights(each: RoundMetrics) -> bool:
    return bool(each.training and each.training.trained and leaves_kept(each.gate))


def _figures(metrics: Sequence[RoundMetrics]) -> Iterator[str]:
    yield from ("## Figures", "")
    yield from ("| round | questions | reward | pairs | trained | held-out pass@1 |", "|" + "---|" * 6)
    for each in metrics:
        heldout = each.heldout.pass_at_1 if each.heldout else None
        reward = each.train.average_reward if each.train else None
        cells = (
            str(each.round or "base"),
            str(each.pool.questions) if each.pool else "–",
            f"{reward.value:.3f}" if reward else "–",
            "–" if each.pairs is None else str(each.pairs),
            "yes" if _changed_weights(each) else "no",
            f"{heldout.value:.3f} [{heldout.low:.3f}, {heldout.high:.3f}]" if heldout else "–",
        )
        yield f"| {' | '.join(cells)} |"
    yield from ("", "Intervals are 95 %. All figures: `prosetting_metrics.jsonl`.")
