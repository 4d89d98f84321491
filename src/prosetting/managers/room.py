"""Whether the disk has room for what a stage is about to write, estimated before it begins."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from prosetting.config import Settings
from prosetting.core.journal import Journal
from prosetting.core.storage import check_room
from prosetting.core.workspace import Workspace
from prosetting.records import Stage

RESERVE_BYTES = 32 * 2**20
"""For the journal's own scratch, state files and logs."""
BYTES_A_QUESTION = 8 * 2**10  # a new question with its analysis, in the journal and in two files
BYTES_A_GRADE = 2 * 2**10  # a verdict, and a teacher's reply where there is one
MODELS_OF_A_TRAINING = {"TRL_DPO": 5, "VERL_GRPO": 13, "VERL_PPO": 25}
"""Of the model's size: the new weights, and a checkpoint with the weights and Adam's two moments in fp32. verl keeps
two checkpoints of a model in bf16 so, and in PPO two of the critic as well."""
SAMPLED_ATTEMPTS = 200


def check_room_for(
    stage: str, round_: int, settings: Settings, workspace: Workspace, journal: Journal, model_path: str
) -> None:
    """Raises RunPaused, naming what is needed and what is free, where the disk will not hold what `stage` writes."""
    questions = sum(journal.pool_counts(round_).values())
    needed = bytes_needed(
        stage,
        questions=questions,
        attempts=questions * settings.attempts_per_question,
        attempt_bytes=_attempt_bytes(journal, round_, settings),
        training_bytes=MODELS_OF_A_TRAINING[settings.training_framework] * weights_bytes(Path(model_path).expanduser()),
    )
    check_room(workspace.root, needed, f"round {round_} · {stage}")


def bytes_needed(stage: str, *, questions: int, attempts: int, attempt_bytes: int, training_bytes: int) -> int:
    """About what a stage of a round writes, in bytes, a reserve included.

    Attempts are kept in the journal and in one file when drawn, in one file when graded, and about twice more in the
    compressed pairs, where each recurs.
    """
    texts = attempts * attempt_bytes
    return RESERVE_BYTES + {
        Stage.DATA_COLLECTION: 2 * texts,
        Stage.DATA_GRADING: texts + attempts * BYTES_A_GRADE,
        Stage.DPO_CONVERSION: 2 * texts,
        Stage.TRL_TRAINING: training_bytes,
        Stage.NEXT_ROUND_PREP: questions * BYTES_A_QUESTION,
    }.get(Stage(stage), 0)


def weights_bytes(folder: Path) -> int:
    """The size of a model folder's weights; 0 for what is no folder here."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder.is_dir() else 0


def _attempt_bytes(journal: Journal, round_: int, settings: Settings) -> int:
    """The mean size of the latest attempts; before there are any, a quarter of the longest that may come."""
    for known in (round_, round_ - 1):
        if sampled := [
            len(t.response.encode()) for t in islice(journal.trajectories("train", known), SAMPLED_ATTEMPTS)
        ]:
            return sum(sampled) // len(sampled) + 1
    return settings.solver_max_new_tokens
