"""A run made of the real loop and two scripted engines, small enough to be repeated hundreds of times.

Controller, journal, files, pairing, grading and the embedded teacher (a real server in a process of its own) are
those of every run. Only the engines that would need a model are scripted: a Solver that answers small stories right
or wrong by the draw's seed and gets better with each training, and as a Generator writes such stories; and a Trainer
that writes a tiny model folder.
"""

from __future__ import annotations

import hashlib
import json
import random
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow.parquet as pq

from prosetting.collectors.solver import Sample, SampleRequest, SamplingParams
from prosetting.config import Settings
from prosetting.core.artifacts import digest, make_folder
from prosetting.core.crash_points import reached
from prosetting.core.workspace import Workspace
from prosetting.datasets.generator_text import generator_completion
from prosetting.managers.run import start_run
from prosetting.teachers import arithmetic
from prosetting.trainers.base import Trainer, TrainingJob, TrainingResult
from prosetting.trainers.checkpoints import put_in_place, seal, sealed_or_quarantined
from prosetting.trainers.generator_job import read_rows

WORKERS = 4
"""Teacher calls in flight."""
CHANCE_AT_FIRST, CHANCE_A_TRAINING = 0.45, 0.15
_QUESTIONS, _HELD_OUT, _REPORTED, _ATTEMPTS = 3, 1, 1, 3


def toy_settings(
    inputs: Path, workspace: Path, *, rounds: int, seed: int = 7, generator_share: float = 0.0
) -> Settings:
    """Rounds that train from the second on, with held-out questions, questions without reference, replays, and
    supervised rows."""
    return Settings(
        solver_model_path=str(inputs / "base"),
        questions_file=inputs / "questions.json",
        validation_data_file=inputs / "heldout.json",
        workspace_dir=workspace,
        total_rounds=rounds,
        first_training_round=2,
        seed=seed,
        attempts_per_question=_ATTEMPTS,
        eval_attempts=1,
        new_questions_per_round=2,
        max_pool_questions=4,
        all_correct_questions="supervised",
        supervised_rows_per_round=1,
        trl_loss_type=("sigmoid", "sft"),
        trl_loss_weights=(1.0, 5.0),
        solver_batch_size=_ATTEMPTS,
        solver_instruction="",
        teacher_concurrent_workers=WORKERS,
        teacher_retry_delay=0.01,
        auto_max_retries=1,
        auto_retry_delay=0.0,
        physical_solver_gpu=(),
        physical_grpo_gpu=(),
        generator_model_path=str(inputs / "generator") if generator_share else None,
        generator_share=generator_share,
    )


def write_toy_inputs(folder: Path, *, seed: int = 7) -> None:
    """The base model and the three question files. Every other question has no reference, so that Teacher1 decides."""
    make_folder(folder)
    rng = random.Random(f"{seed} toy")
    stories: dict[str, str] = {}
    while len(stories) < _QUESTIONS + _HELD_OUT + _REPORTED:
        problem = arithmetic.random_problem(rng, 1 + len(stories) % 3)
        stories[arithmetic.render(problem)] = str(arithmetic.solve(problem))
    rows = [{"question": question, "answer": answer} for question, answer in stories.items()]
    for row in rows[1:_QUESTIONS:2]:
        del row["answer"]
    (folder / "questions.json").write_text(json.dumps(rows[:_QUESTIONS]), encoding="utf-8")
    (folder / "heldout.json").write_text(json.dumps(rows[_QUESTIONS:-_REPORTED]), encoding="utf-8")
    (folder / "reported.json").write_text(json.dumps(rows[-_REPORTED:]), encoding="utf-8")
    _write_model(folder / "base", trainings=0, made_of="")
    _write_model(folder / "generator", trainings=0, made_of="generator")


def run_toy(settings: Settings, open_trainer: Callable[[Settings], Trainer] | None = None) -> int:
    """Start, or go on with, a toy run; the exit code."""
    trainer = open_trainer or (lambda _: ScriptedTrainer())
    return start_run(settings, (), "auto", open_solver=_open_solver, open_trainer=trainer)


def _open_solver(settings: Settings, workspace: Workspace, model: str) -> ScriptedSolver:
    return ScriptedSolver(model)


class ScriptedSolver:
    """Answers the stories of `teachers.arithmetic`, right as often as its checkpoint is trained. No weights."""

    def __init__(self, model: str) -> None:
        self.load(model)

    def load(self, model: str | None) -> bool:
        if model is not None:
            config = json.loads(Path(model, "config.json").read_text(encoding="utf-8"))
            self._chance = CHANCE_AT_FIRST + CHANCE_A_TRAINING * config["trainings"]
        return True

    def sample(self, requests: Iterable[SampleRequest], params: SamplingParams) -> Iterator[Sample]:
        for request in requests:
            yield self._attempt(request)
            reached("solver:sampled")

    def _attempt(self, request: SampleRequest) -> Sample:
        rng = random.Random(f"{request.seed} {request.prompt}")
        problem = arithmetic.parse(request.prompt)
        if problem is None:
            return _draft(request, rng)
        response = arithmetic.solution_text(problem)
        if rng.random() >= self._chance:
            wrong = arithmetic.solve(problem) + rng.choice((1, 2, 10))
            response = response.replace("\\boxed{" + str(arithmetic.solve(problem)), "\\boxed{" + str(wrong))
        return Sample(request.question_id, request.attempt, response, "stop", len(response.split()))

    def close(self) -> None:
        pass


def _draft(request: SampleRequest, rng: random.Random) -> Sample:
    """What the Generator writes: every third time without an answer."""
    problem = arithmetic.random_problem(rng, rng.choice((1, 2, 3)))
    answer = str(arithmetic.solve(problem)) if rng.random() < 2 / 3 else ""
    text = generator_completion(arithmetic.render(problem), arithmetic.solution_text(problem), answer)
    return Sample(request.question_id, request.attempt, text, "stop", len(text.split()))


class ScriptedTrainer:
    """Writes a model folder that depends on the model before it and on every pair or row, as training would.

    It is sealed, taken over and, where half made, set aside as those of the real trainer are.
    """

    def get_ready(self, job: TrainingJob) -> None:
        pass

    def train(self, job: TrainingJob) -> TrainingResult:
        started = time.monotonic()
        before = json.loads(Path(job.model_path, "config.json").read_text(encoding="utf-8"))
        tables = [pq.read_table(folder / "train.parquet") for folder in job.dataset_dirs]
        of_generator = [file for file in job.training_files if file.suffix == ".json"]
        rows = [asdict(row) for row in read_rows(of_generator)]
        made_of = digest(before, *(table.to_pylist() for table in tables), *rows)
        partial = job.output_dir.with_name(f"{job.output_dir.name}.partial")
        aside = job.output_dir.parent.parent / "quarantine"
        reached("trainer:begun")
        if not sealed_or_quarantined(job.output_dir, made_of, aside):
            if not sealed_or_quarantined(partial, made_of, aside):
                _write_model(partial, trainings=before["trainings"] + 1, made_of=made_of)
                seal(partial, made_of, {})
            put_in_place(partial, job.output_dir)
        pairs = sum(table.num_rows for table in tables) + len(rows)
        return TrainingResult(
            model_dir=job.output_dir,
            train_pairs=pairs,
            validation_pairs=sum(
                pq.read_metadata(folder / "validation.parquet").num_rows for folder in job.dataset_dirs
            ),
            steps=pairs,
            metrics={"loss": int(made_of[:6], 16) / 16**6},
            duration_seconds=time.monotonic() - started,
            batch_size_used=1,
        )

    def close(self) -> None:
        pass


class CollapsingOnce(ScriptedTrainer):
    """Its training in one round says of itself what the round gate takes for a collapse, whatever the scores are."""

    def __init__(self, round_: int) -> None:
        self._round = round_

    def train(self, job: TrainingJob) -> TrainingResult:
        result = super().train(job)
        if job.round != self._round:
            return result
        return replace(result, metrics=result.metrics | {"logps_before/chosen": -20.0, "logps_after/chosen": -80.0})


def _write_model(folder: Path, *, trainings: int, made_of: str) -> None:
    """A folder that passes for a Hugging Face model: configuration, one safetensors file, tokenizer."""
    make_folder(folder)
    weights = hashlib.sha256(f"{trainings} {made_of}".encode()).digest()
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(weights)], "data_offsets": [0, len(weights)]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + weights)
    reached("trainer:weights_written")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"trainings": trainings, "made_of": made_of}), encoding="utf-8")
