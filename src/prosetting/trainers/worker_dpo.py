"""The child process that trains one round: trl.DPOTrainer on the pairs of a job file. Run by `accelerate launch`.

Weights are float32 and, with bf16 or fp16, computed with under autocast, as TRL does by default: small updates
would be lost in a bf16 weight. A process holds weights, gradients and two AdamW moments, 16 bytes a parameter.
The reference policy is the model at the round's start; its log-probabilities are computed once, beforehand.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl import DPOConfig, DPOTrainer

from prosetting.core import children

COLUMNS = ["prompt", "chosen", "rejected"]
PROGRESS_INTERVAL_S = 0.2


class Progress(TrainerCallback):
    """Appends steps to the progress file, and has the last step logged whatever the interval."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.loss: float | None = None
        self.told_at = 0.0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        last = state.global_step >= state.max_steps
        control.should_log = control.should_log or last
        if state.is_world_process_zero and (last or time.monotonic() - self.told_at >= PROGRESS_INTERVAL_S):
            self.told_at = time.monotonic()
            append_line(self.file, {"step": state.global_step, "total": state.max_steps, "loss": self.loss})

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        loss = (logs or {}).get("loss")
        if loss is not None:
            self.loss = loss if math.isfinite(loss) else None


def append_line(file: Path, message: dict[str, Any]) -> None:
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(message) + "\n")


def read_pairs(files: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> datasets.Dataset:
    """Pairs of parquet files in their order, less those whose prompt alone fills `max_length`.

    As conversations where the tokenizer has a chat template, as plain strings where it has none.
    """
    schema = pa.schema([(name, pa.large_string()) for name in COLUMNS])
    tables = [pq.read_table(file, columns=COLUMNS).cast(schema) for file in files]
    pairs = datasets.Dataset(pa.concat_tables(tables) if tables else schema.empty_table())

    @cache
    def fits(prompt: str) -> bool:
        turns = _chat(prompt, tokenizer, "user")
        if isinstance(turns, str):
            return len(tokenizer(turns)["input_ids"]) < max_length
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        return len(tokenizer(text, add_special_tokens=False)["input_ids"]) < max_length

    fitting = [index for index, prompt in enumerate(pairs["prompt"]) if fits(prompt)]
    if len(fitting) < len(pairs):
        pairs = pairs.select(fitting)
    if tokenizer.chat_template is None or not len(pairs):
        return pairs
    return pairs.map(
        lambda batch: {
            "prompt": [_chat(text, tokenizer, "user") for text in batch["prompt"]],
            "chosen": [_chat(text, tokenizer, "assistant") for text in batch["chosen"]],
            "rejected": [_chat(text, tokenizer, "assistant") for text in batch["rejected"]],
        },
        batched=True,
    )


def _chat(text: str, tokenizer: PreTrainedTokenizerBase, role: str) -> str | list[dict[str, str]]:
    return text if tokenizer.chat_template is None else [{"role": role, "content": text}]


def prepare(job: dict[str, Any], args: DPOConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[Any, Any]:
    """The training and validation sets, written once by the first process and read by all.

    From files, not from memory: TRL keeps the reference log-probabilities beside them, for all processes.
    """
    folders = [Path(job["work_dir"]) / name for name in ("train", "validation")]
    with args.main_process_first(desc="preparing the pairs"):
        if args.process_index == 0:
            for folder, key in zip(folders, ("train_files", "validation_files"), strict=True):
                if len(pairs := read_pairs(job[key], tokenizer, args.max_length)):
                    pairs.save_to_disk(folder)
    train, validation = (datasets.load_from_disk(folder) if folder.exists() else None for folder in folders)
    if train is None:
        raise ValueError(f"every prompt is longer than TRL_MAX_LENGTH={args.max_length} tokens")
    return train, validation


def train(job: dict[str, Any]) -> None:
    """Train, evaluate, save. Only the first process writes."""
    progress_file = Path(job["progress_file"])
    output_dir = job["trackers_dir"] if job["dpo"]["report_to"] != "none" else job["work_dir"]
    args = DPOConfig(output_dir=output_dir, **job["dpo"])
    if not args.use_cpu and not torch.cuda.is_available():
        raise ValueError("a GPU is asked for, but this torch sees none (is it a CPU-only torch?)")
    transformers.set_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(job["model_path"], trust_remote_code=False)
    train_set, validation_set = prepare(job, args, tokenizer)
    model = AutoModelForCausalLM.from_pretrained(
        job["model_path"], dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )
    trainer = DPOTrainer(
        model=model,
        ref_model=None,
        args=args,
        train_dataset=train_set,
        eval_dataset=validation_set,
        processing_class=tokenizer,
        callbacks=[Progress(progress_file)],
    )
    outcome = trainer.train()
    if not all(bool(torch.isfinite(weight).all()) for weight in model.parameters()):
        raise ArithmeticError("the weights are not finite any more")
    evaluated = trainer.evaluate() if validation_set is not None else {}
    trainer.save_model(job["save_to"])
    if not trainer.is_world_process_zero():
        return
    # A pickle that no engine reads and that names this machine's paths.
    (Path(job["save_to"]) / "training_args.bin").unlink(missing_ok=True)
    metrics = {"train_loss": outcome.training_loss, **logged_metrics(trainer.state.log_history), **evaluated}
    metrics["processes"] = args.world_size
    metrics["train_seconds"] = outcome.metrics["train_runtime"]
    result = {
        "train_pairs": len(train_set),
        "validation_pairs": len(validation_set or ()),
        "steps": outcome.global_step,
        "metrics": {name: float(value) for name, value in metrics.items() if math.isfinite(value)},
    }
    Path(job["result_file"]).write_text(json.dumps(result, indent=1), encoding="utf-8")


def logged_metrics(history: list[dict[str, float]]) -> dict[str, float]:
    """TRL's figures of the last logged steps, and the log-probabilities of the first, as `first_logps/…`."""
    steps = [entry for entry in history if "rewards/margins" in entry]
    if not steps:
        return {}
    first = {f"first_{name}": value for name, value in steps[0].items() if name.startswith("logps/")}
    return first | {name: value for name, value in steps[-1].items() if "/" in name or name == "loss"}


def main() -> None:
    """Exits with 1 on failure, after one line of what it was in the progress file."""
    children.end_with_the_run()
    # Each of several processes has a session of its own, out of reach of a signal to the launcher's group:
    # so it watches the launcher as well.
    os.environ[children.RUN_PID] = str(os.getppid())
    children.end_with_the_run()
    parser = argparse.ArgumentParser()
    parser.add_argument("--job", required=True, type=Path)
    job = json.loads(parser.parse_args().job.read_text(encoding="utf-8"))
    transformers.logging.disable_progress_bar()
    try:
        train(job)
    except Exception as error:
        message = " ".join(f"{type(error).__name__}: {error}".split())[:600]
        append_line(Path(job["progress_file"]), {"error": message})
        raise
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
