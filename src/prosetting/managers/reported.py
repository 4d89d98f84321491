"""The score of the last weights on EVAL_FILES: what a run is reported to have come to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prosetting.core.artifacts import digest, replace_atomically, write_json
from prosetting.core.journal import Journal
from prosetting.core.state_manager import EVAL_FILES
from prosetting.core.workspace import Workspace
from prosetting.managers.heldout import question_scores
from prosetting.records import Question

Reported = Mapping[str, Sequence[Question]]
"""The questions of each of EVAL_FILES."""


def name_of(file: str, reported: Reported) -> str:
    """A file's name without its ending; the whole path where two of them share that."""
    stem = Path(file).stem
    return stem if sum(Path(other).stem == stem for other in reported) == 1 else file


def reported_inputs(reported: Reported, eval_attempts: int, weights: str) -> dict[str, Any]:
    """What a reported score depends on, by name."""
    ids = [[question.question_id for question in asked] for asked in reported.values()]
    return {"questions of EVAL_FILES": digest(ids), "eval_attempts": eval_attempts, "weights": weights}


def reported_scores(journal: Journal, round_: int, reported: Reported, seed: int) -> dict[str, Any]:
    """What the graded attempts come to, file by file."""
    return {
        "files": [
            {
                "task": name_of(file, reported),
                "questions": len(asked),
                "metrics": [
                    asdict(metric) for metric in question_scores(journal, "reported", round_, asked).metrics(seed)
                ],
            }
            for file, asked in reported.items()
        ]
    }


def write_reported(workspace: Workspace, journal: Journal, round_: int, reported: Reported) -> None:
    """`results/eval.json` and, question by question, `results/eval.questions.jsonl`."""
    record = journal.stage(round_, EVAL_FILES)
    assert record is not None, "the score is written once it is there"
    with replace_atomically(workspace.results / "eval.questions.jsonl") as temporary, temporary.open("w") as stream:
        for file, asked in reported.items():
            for row in question_scores(journal, "reported", round_, asked).rows():
                stream.write(json.dumps({"task": name_of(file, reported), **row}) + "\n")
    write_json(workspace.results / "eval.json", {"round": round_, **record.output})


def score_in_words(file: dict[str, Any]) -> str:
    """Of one of EVAL_FILES: the mean and, where there is one, the majority of all attempts."""
    shown = {each["name"]: each for each in file["metrics"] if each["name"].startswith(("mean", "majority", "greedy"))}
    told = [f"{name} {one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]" for name, one in shown.items()]
    return f"{', '.join(told) or 'nothing could be graded'} ({file['questions']} questions)"
