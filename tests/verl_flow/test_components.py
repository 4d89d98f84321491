"""verl's real parts, one by one, without a GPU: configuration, dataset, reward manager, merger."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from verls_python import ON_CPU, SUBSTITUTE, in_verl, told

from prosetting.config import Settings
from prosetting.core.artifacts import write_json
from prosetting.core.concurrency import in_thread
from prosetting.core.group_commit import GroupCommit
from prosetting.core.journal import Journal
from prosetting.datasets.data_saver import save_verl_rows
from prosetting.datasets.verl_data import verl_row
from prosetting.errors import ConfigError
from prosetting.managers.open_teachers import open_teachers
from prosetting.processors.answer_verifier import AnswerVerifier
from prosetting.processors.reward_calculator import RewardCalculator
from prosetting.processors.reward_server import RewardServer
from prosetting.records import Grade, Question, Verdict, question_id_of
from prosetting.trainers.base import TrainingJob
from prosetting.trainers.verl_environment import check_verl, resolved_configuration
from prosetting.trainers.verl_job import Places, batches_of, overrides, run_of
from prosetting.trainers.verl_trainer import VerlTrainer
from prosetting.trainers.worker_verl_reward import FAILURE_FILE, PORT, TOKEN

STORY = "Max starts with {} cards. Max buys {} more. How many cards does Max have now?"
QUESTIONS = [
    Question(question_id_of(text), text, reference)
    for text, reference in [(STORY.format(5, 4), "9"), (STORY.format(2, 6), None), (STORY.format(3, 3), "6")]
]


@pytest.fixture
def settings(verl_python: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in ON_CPU.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(SUBSTITUTE))
    return Settings(
        solver_model_path=str(model),
        workspace_dir=tmp_path,
        training_framework="VERL_PPO",
        verl_python=verl_python,
        verl_rollout_engine="hf_cpu",
        physical_grpo_gpu=(),
        verl_max_prompt_length=200,
        solver_max_new_tokens=40,
        verl_overrides="actor_rollout_ref.model.use_remove_padding=False critic.model.use_remove_padding=False",
    )


@pytest.fixture
def job(settings: Settings, model: Path, tmp_path: Path) -> TrainingJob:
    """With the hardest name that a folder can have for hydra's grammar."""
    folder = tmp_path / "it's a=run, {x} ${y} \\"
    grades = [Grade(1, QUESTIONS[0].question_id, a, verdict, "rules") for a, verdict in enumerate(Verdict)]
    rows = [
        verl_row(question, grades, prompt=f"{question.text}\nBox it.", round_=1, index=index)
        for index, question in enumerate(QUESTIONS)
    ]
    save_verl_rows(folder / "data.json", folder / "data.parquet", filter(None, rows))
    return TrainingJob(
        round=1,
        model_path=str(model),
        dataset_dirs=(),
        output_dir=folder / "merged_solver_r1",
        log_file=folder / "verl_trainer.log",
        seed=5,
        training_files=[folder / "data.parquet"],
    )


def arguments(settings: Settings, job: TrainingJob) -> list[str]:
    return overrides(settings, job, batches_of(settings, 3), cpu_count=2, ray_dir="/tmp/ray")


@pytest.mark.parametrize("framework", ["VERL_PPO", "VERL_GRPO"])
def test_verl_composes_and_validates_what_is_generated(settings: Settings, job: TrainingJob, framework: str) -> None:
    settings = settings.model_copy(update={"training_framework": framework})
    found = resolved_configuration(settings, arguments(settings, job))
    assert found["data"]["train_files"] == [str(file) for file in job.training_files]
    assert found["trainer"]["default_local_dir"] == str(Places.of(job).checkpoints)
    assert found["algorithm"]["adv_estimator"] == {"VERL_PPO": "gae", "VERL_GRPO": "grpo"}[framework]
    assert found["actor_rollout_ref"]["rollout"]["n"] == {"VERL_PPO": 1, "VERL_GRPO": 8}[framework]
    assert found["data"]["train_batch_size"] == 3
    assert found["actor_rollout_ref"]["model"]["path"] == job.model_path
    assert found["reward"]["reward_manager"]["name"] == "CutOffAwareRewardManager"


def test_a_mistyped_key_is_refused_before_anything_is_spent(settings: Settings) -> None:
    check_verl(settings)
    wrong = settings.model_copy(update={"verl_overrides": f"{settings.verl_overrides} data.train_bacth_size=4"})
    with pytest.raises(ConfigError, match=r"verl refuses its configuration: .*train_bacth_size"):
        check_verl(wrong)


def test_verls_dataset_reads_the_parquet_and_the_json_alike(
    settings: Settings, job: TrainingJob, tmp_path: Path
) -> None:
    file = job.training_files[0]
    asked = {"overrides": arguments(settings, job), "files": [str(file), str(file.with_suffix(".json"))]}
    of_parquet, of_json = told(in_verl("read_dataset.py", asked=asked, env={"HF_DATASETS_CACHE": str(tmp_path / "hf")}))
    assert of_parquet == of_json
    assert [row["ground_truth"] for row in of_parquet] == ["9", "", "6"]
    assert [row["index"] for row in of_parquet] == [0, 1, 2]
    for row, question in zip(of_parquet, QUESTIONS, strict=True):
        # The prompt that the Solver is sampled with, in the model's own chat template.
        chat = f"<|im_start|>user\n{question.text}\nBox it.<|im_end|>\n<|im_start|>assistant\n"
        assert row["prompt"] == chat
        assert row["data_source"] == "prosetting"
        assert row["extra_info"]["question_id"] == question.question_id
        assert row["extra_info"]["pass_rate"] == 0.5


@pytest.fixture
def run_parts(settings: Settings, tmp_path: Path) -> Iterator[tuple[asyncio.Runner, RewardServer]]:
    """What a run serves verdicts with: journal, rules, and the embedded teacher over HTTP."""
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        journal = stack.enter_context(Journal(tmp_path / "prosetting.db"))
        commits = GroupCommit(journal)
        log_file = tmp_path / "teacher.log"
        teacher, _ = stack.enter_context(open_teachers(settings, runner, log_file=log_file, commits=commits))
        rewards = RewardCalculator(
            journal,
            commits,
            stack.enter_context(AnswerVerifier()),
            teacher,
            reward_function=None,
            concurrent_workers=4,
            run_seed=5,
        )
        by_id = {question.question_id: question for question in QUESTIONS}
        yield runner, RewardServer(rewards, by_id.get, runner.get_loop())


def test_verls_reward_manager_gets_the_cascades_verdicts(
    settings: Settings, job: TrainingJob, run_parts: tuple[asyncio.Runner, RewardServer], tmp_path: Path
) -> None:
    rows = json.loads(job.training_files[0].with_suffix(".json").read_text())
    attempts: list[tuple[int, str, bool, float]] = [
        (0, "5+4=9 so \\boxed{9}", True, 1.0),  # rules
        (0, "5+4=8 so \\boxed{8}", True, 0.0),
        (1, "2+6=8 \\boxed{8}", True, 1.0),  # no reference: Teacher1
        (1, "2+6=7 \\boxed{7}", True, 0.0),
        (2, "3+3=6\nThe answer is 6", True, 1.0),
        (2, "I do not know.", True, 0.0),
    ]
    asked = {
        "overrides": arguments(settings, job),
        "attempts": [{"row": rows[at], "response": text, "ended": ended} for at, text, ended, _ in attempts],
    }
    failure_file = tmp_path / "failures"

    def grade(server: RewardServer) -> tuple[Any, dict[str, int]]:
        with server.serving(1) as rewards:
            env = {PORT: str(rewards.port), TOKEN: rewards.token, FAILURE_FILE: str(failure_file)}
            return told(in_verl("grade.py", asked=asked, env=env)), rewards.counts

    found, counts = _while_the_loop_runs(run_parts, grade)
    assert found["manager"] == "NaiveRewardManager"
    assert [reward["reward_score"] for reward in found["rewards"]] == [score for *_, score in attempts]
    assert counts == {"attempts": 6, "correct": 3, "incorrect": 3, "unknown": 0}
    assert not failure_file.exists()


def test_an_attempt_at_the_token_limit_is_graded_as_cut_off(
    settings: Settings, job: TrainingJob, run_parts: tuple[asyncio.Runner, RewardServer], tmp_path: Path
) -> None:
    """ "A: 9" may be the head of "A: 90": the rules must not take it. The limit is what this text has in tokens."""
    rows = json.loads(job.training_files[0].with_suffix(".json").read_text())
    text = "A: 9"
    limit = len(told(in_verl("count_tokens.py", str(settings.solver_model_path), asked=text)))
    settings = settings.model_copy(update={"solver_max_new_tokens": limit})
    asked = {
        "overrides": arguments(settings, job),
        "attempts": [{"row": rows[0], "response": text, "ended": False}],
    }
    seen: list[bool] = []

    def grade(server: RewardServer) -> Any:
        with server.serving(1) as rewards:
            grader = rewards._grade  # type: ignore[attr-defined]

            async def watched(question: Question, response: str, *, cut_off: bool) -> Any:
                seen.append(cut_off)
                return await grader(question, response, cut_off=cut_off)

            rewards._grade = watched  # type: ignore[attr-defined]
            env = {PORT: str(rewards.port), TOKEN: rewards.token, FAILURE_FILE: str(tmp_path / "failures")}
            return told(in_verl("grade.py", asked=asked, env=env))

    _while_the_loop_runs(run_parts, grade)
    assert seen == [True]


def _while_the_loop_runs(parts: tuple[asyncio.Runner, RewardServer], work: Callable[[RewardServer], Any]) -> Any:
    runner, server = parts

    async def in_a_thread() -> Any:
        return await in_thread(lambda: work(server))

    return runner.run(in_a_thread())


def test_two_ranks_shards_become_a_model_folder_that_is_loaded(
    settings: Settings, job: TrainingJob, model: Path
) -> None:
    """A training that ended before its merging: only that is left to do."""
    places = Places.of(job)
    shards = places.checkpoints / "global_step_2" / "actor"
    shards.mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    in_verl(
        "save_shards.py", str(model), str(shards), env={**ON_CPU, "PYTHONPATH": str(SUBSTITUTE), "SHARDS_PORT": port}
    )
    assert {file.name for file in shards.glob("model_*")} == {f"model_world_size_2_rank_{r}.pt" for r in (0, 1)}
    write_json(places.run_file, {"run": run_of(settings, job)})
    write_json(places.work / "trained.json", {"facts": {"steps": 2, "metrics": {"reward": 0.5}}})

    result = VerlTrainer(settings, rewards=None).train(job)  # type: ignore[arg-type]

    assert (result.steps, result.train_pairs, result.metrics) == (2, 3, {"reward": 0.5})
    assert not places.work.exists()
    _same_weights_in_bf16(model, job.output_dir)
    again = VerlTrainer(settings, rewards=None).train(job)  # type: ignore[arg-type]
    assert replace(again, duration_seconds=0) == replace(result, duration_seconds=0)


def _same_weights_in_bf16(before: Path, merged: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    expected = AutoModelForCausalLM.from_pretrained(before, dtype=torch.bfloat16).state_dict()
    found = AutoModelForCausalLM.from_pretrained(merged, dtype="auto")
    assert found.dtype == torch.bfloat16
    assert all(torch.equal(found.state_dict()[name], tensor) for name, tensor in expected.items())
    tokenizer = AutoTokenizer.from_pretrained(merged)
    assert tokenizer.chat_template
    assert tokenizer.encode("5+4=9") == AutoTokenizer.from_pretrained(before).encode("5+4=9")
