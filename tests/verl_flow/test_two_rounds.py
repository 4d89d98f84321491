"""Whole runs through the command line that train with verl: real Ray, FSDP2, PPO and GRPO on this machine's CPU.

What needs a GPU is the SUBSTITUTE of `cpu_substitute/`: nothing here says anything about vLLM, NCCL or CUDA.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from verls_python import ON_CPU, SUBSTITUTE, VERL_PYTHON

from prosetting.demo.prepare import prepare
from prosetting.demo.recipe import Recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SMALL = Recipe(layers=2, steps=120, batch=32, examples=3_840, seed_questions=12, heldout_questions=12)
PLAIN = "attn_implementation=sdpa"
ON_THE_CPU = (
    "actor_rollout_ref.model.use_remove_padding=False critic.model.use_remove_padding=False"
    f" +actor_rollout_ref.model.override_config.{PLAIN} +critic.model.override_config.{PLAIN}"
    " actor_rollout_ref.actor.use_torch_compile=False actor_rollout_ref.actor.fsdp_config.dtype=float32"
    " actor_rollout_ref.ref.fsdp_config.dtype=float32 critic.fsdp.dtype=float32"
    " actor_rollout_ref.rollout.calculate_log_probs=False actor_rollout_ref.rollout.agent.num_workers=1"
    " reward.num_workers=1 ray_kwargs.ray_init.num_cpus=32"
)
SETTINGS = {
    "total_rounds": "2",
    "first_training_round": "1",
    "new_questions_per_round": "3",
    "attempts_per_question": "4",
    "eval_attempts": "2",
    "solver_batch_size": "24",
    "auto_max_retries": "0",
    "verl_python": str(VERL_PYTHON),
    "verl_rollout_engine": "hf_cpu",
    "verl_batch_questions": "6",
    "verl_mini_batch_questions": "6",
    "verl_learning_rate": "1e-3",
    "verl_max_prompt_length": "64",
}
OURS = ("TEACHER_", "SOLVER_", "TRL_", "VERL_", "AUTO_", "WORKSPACE_", "TOTAL_", "SEED", "QUESTIONS_", "REWARD_")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's solver and questions; its end token has the name that verl wants to see in a Qwen3."""
    folder = tmp_path_factory.mktemp("demo")
    env_file = prepare(folder, 5, workspace=folder / "unused", recipe=SMALL, say=lambda text: None)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        file = folder / "solver" / name
        file.write_text(file.read_text(encoding="utf-8").replace("<|end|>", "<|im_end|>"), encoding="utf-8")
    return env_file


def command(env_file: Path, workspace: Path, framework: str, *, ranks: int = 1, **changes: str) -> list[str]:
    gpus = f" trainer.n_gpus_per_node={ranks} +ray_kwargs.ray_init.num_gpus={ranks}"
    values = SETTINGS | {"training_framework": framework, "verl_overrides": ON_THE_CPU + gpus} | changes
    flags = [part for name, value in values.items() for part in (f"--{name.replace('_', '-')}", value)]
    return [
        *(sys.executable, "-m", "prosetting", "run", "--env-file", str(env_file)),
        *("--workspace-dir", str(workspace)),
        *flags,
    ]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    path = os.pathsep.join(filter(None, [str(SUBSTITUTE), os.environ.get("PYTHONPATH", "")]))
    return kept | ON_CPU | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def run(*arguments: Any, **changes: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*arguments, **changes), capture_output=True, text=True, check=False, timeout=1500, env=environment()
    )
    assert "Traceback" not in done.stderr
    return done


@contextmanager
def started(*arguments: Any, **changes: Any) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        command(*arguments, **changes), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment()
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def left_over(workspace: Path) -> list[str]:
    """Command lines of live processes that a training of this workspace has started."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environ = (process / "environ").read_bytes()
            command_line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if b"PROSETTING_VERL_TRAINING=" + str(workspace).encode() in environ:
            found.append(command_line)
    return found


def wait_for(condition: Callable[[], bool], seconds: float = 900) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.1)


@pytest.mark.parametrize(("framework", "ranks"), [("VERL_PPO", 1), ("VERL_GRPO", 2)])
def test_round_two_trains_from_round_ones_weights(demo: Path, tmp_path: Path, framework: str, ranks: int) -> None:
    done = run(demo, tmp_path / "run", framework, ranks=ranks)
    assert done.returncode == 0, done.stderr[-4000:]
    workspace = tmp_path / "run"
    first, second = (workspace / "checkpoints" / f"merged_solver_r{r}" for r in (1, 2))
    told = read(workspace / "logs" / "verl_trainer.job.json")["arguments"]  # of the last round
    assert f"actor_rollout_ref.model.path={first}" in told
    assert f"algorithm.adv_estimator={'gae' if framework == 'VERL_PPO' else 'grpo'}" in told
    for round_, model in ((1, first), (2, second)):
        result = read(workspace / "training_results" / f"trl_r{round_}_result.json")
        assert result["trained"]
        assert result["steps"] >= 2
        assert result["reason"].startswith(f"trained on {result['train_pairs']} questions of rounds {round_}")
        metrics = result["metrics"]
        attempts = 1 if framework == "VERL_PPO" else 4
        assert metrics["graded_attempts"] >= result["steps"] * attempts
        assert metrics["graded_attempts"] % (result["steps"] * attempts) == 0
        verdicts = [metrics[f"graded_{verdict}"] for verdict in ("correct", "incorrect", "unknown")]
        assert sum(verdicts) == metrics["graded_attempts"]
        assert 0 <= metrics["reward"] <= 1
        assert ("vf_loss" in metrics) == (framework == "VERL_PPO")
        assert {"config.json", "tokenizer.json", "complete.json"} <= {file.name for file in model.iterdir()}
        assert not model.with_name(f"{model.name}.work").exists()
        (data,) = (workspace / "training_data").glob(f"solver_r{round_}_*.parquet")
        assert data.with_suffix(".json").exists()
        assert not (workspace / "datasets" / f"round_{round_:02d}").exists()
    _different_weights(Path(demo).parent / "solver", first)
    _different_weights(first, second)
    assert left_over(workspace) == []
    assert not list(Path("/tmp").glob("ps-ray-*/session_*/sockets"))
    summary = read(workspace / "auto_training_summary.json")
    assert summary["final_status"] == "completed"
    assert [r["trained"] for r in summary["rounds"]] == [True, True]
    assert summary["rounds"][1]["heldout"]


def _different_weights(before: Path, after: Path) -> None:
    import torch
    from safetensors.torch import load_file

    old, new = load_file(before / "model.safetensors"), load_file(after / "model.safetensors")
    assert {tensor.dtype for tensor in new.values()} == {torch.bfloat16}
    assert any(not torch.equal(old[name].to(torch.bfloat16), tensor) for name, tensor in new.items() if name in old)


def test_a_training_that_is_stopped_goes_on_from_verls_last_checkpoint(demo: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "run"
    more = {"total_rounds": "1", "verl_num_epochs": "4", "verl_save_steps": "2"}
    arguments = (demo, workspace, "VERL_GRPO")
    tracker = workspace / "checkpoints/merged_solver_r1.work/verl/latest_checkpointed_iteration.txt"
    with started(*arguments, **more) as child:
        wait_for(lambda: tracker.exists() or child.poll() is not None)
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 130
    assert left_over(workspace) == []
    reached = int(tracker.read_text())
    assert read(workspace / "training_state.json")["status"] == "stopped"

    done = run(*arguments, **more)
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"training goes on from step {reached}" in done.stderr
    steps = [json.loads(line)["step"] for line in (workspace / "logs/verl_trainer.progress.jsonl").open()]
    assert steps[0] == reached + 1
    assert read(workspace / "training_results/trl_r1_result.json")["steps"] == steps[-1] == 8


def test_an_outage_of_the_teacher_ends_the_training_and_is_no_reward(demo: Path, tmp_path: Path) -> None:
    """Teacher1 answers while the round is graded, and is gone when verl asks: the run says so, and no model stands."""
    from prosetting.teachers.embedded_teacher import EmbeddedTeacher

    workspace = tmp_path / "run"
    questions = tmp_path / "questions.json"  # none has a reference: all is Teacher1's
    rows = read(Path(demo).parent / "questions.json")
    questions.write_text(json.dumps([{"question": row["question"]} for row in rows]))
    with EmbeddedTeacher(port=0, log_file=tmp_path / "teacher.log") as teacher:
        more = {
            "total_rounds": "1",
            "questions_file": str(questions),
            "teacher_base_url": teacher.endpoint.base_url,
            "teacher_max_retries": "1",
            "teacher_retry_delay": "0.1",
        }
        child = subprocess.Popen(
            command(demo, workspace, "VERL_GRPO", **more), stderr=subprocess.PIPE, text=True, env=environment()
        )
        training = workspace / "checkpoints/merged_solver_r1.work/run.json"
        wait_for(lambda: training.exists() or child.poll() is not None)
    _, said = child.communicate(timeout=900)
    assert child.returncode == 5, said[-4000:]
    assert "Traceback" not in said
    assert not (workspace / "checkpoints" / "merged_solver_r1").exists()
    assert left_over(workspace) == []
    state = read(workspace / "training_state.json")
    assert (state["status"], state["current_stage"]) == ("paused", "trl_training")
