"""The model of a training: loaded, held by its processes as ordered, and made a plain Hugging Face folder at the end.

Part of the training child process. However the processes share the model (DDP, FSDP2, LoRA adapters), what they leave
is one folder of safetensors, configuration and tokenizer that everything else loads without knowing how it was made.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate.state import AcceleratorState
from torch.distributed.tensor import DTensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from prosetting.trainers.checkpoints import seal
from prosetting.trainers.worker_dpo_callbacks import Checkpoints, StopWish, agreed, all_here


def begin(job: dict[str, Any], args: TrainingArguments) -> PreTrainedTokenizerBase:
    """Seeds the process and gives the model's tokenizer. Raises ValueError where this is not what was ordered."""
    check_order({"processes": job["order"]["processes"]}, "", args.world_size, "")
    if not args.use_cpu and not torch.cuda.is_available():
        raise ValueError("a GPU is asked for, but this torch sees none (is it a CPU-only torch?)")
    os.environ["TENSORBOARD_LOGGING_DIR"] = job["tensorboard_dir"]
    transformers.set_seed(args.seed)
    return AutoTokenizer.from_pretrained(job["model_path"], trust_remote_code=job["trust_remote_code"])


def train_to_the_end(trainer: Trainer, job: dict[str, Any], checkpoints: Checkpoints, stop: StopWish) -> int | None:
    """Steps of the whole training, also of one that went on; None where it stopped before, as it was asked to.

    Raises ArithmeticError for weights that are not finite.
    """
    if any(agreed(trainer.args, stop.felt())):
        return None
    check_index(job["resume_from"])
    outcome = trainer.train(resume_from_checkpoint=job["resume_from"])
    if checkpoints.stopped:
        return None
    if any(agreed(trainer.args, not all_finite(trainer.model))):
        raise ArithmeticError(f"the weights are not finite after step {outcome.global_step}")
    return int(outcome.global_step)


def load(job: dict[str, Any]) -> PreTrainedModel:
    """The model at the round's start, in float32."""
    return AutoModelForCausalLM.from_pretrained(
        job["model_path"], dtype=torch.float32, use_safetensors=True, trust_remote_code=job["trust_remote_code"]
    )


def adapters(job: dict[str, Any]) -> dict[str, Any]:
    """What trl's trainers take to train LoRA adapters; nothing where all weights are trained."""
    if not job["lora"]:
        return {}
    from peft import LoraConfig

    return {"peft_config": LoraConfig(**job["lora"])}


class AsOrdered(TrainerCallback):
    """Ends a training that would run as something else than was ordered, before its first forward pass."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._order = order

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        found = AcceleratorState()
        check_order(self._order, found.distributed_type.value, found.num_processes, found.mixed_precision)


def check_order(order: dict[str, Any], kind: str, processes: int, mixed_precision: str) -> None:
    """Raises ValueError where a launcher made something else of what was ordered."""
    if kind.startswith("MULTI_"):
        kind = "MULTI_GPU" if processes > 1 else "NO"
    found = {"kind": kind, "processes": processes, "mixed_precision": mixed_precision}
    for name, wanted in order.items():
        if found[name] != wanted:
            what = name.replace("_", " ")
            raise ValueError(f"the training would not run as it was ordered: {what} {wanted}, found {found[name]}")


OF_A_CHECKPOINT = {
    "torch.distributed.checkpoint.metadata": {
        "_MEM_FORMAT_ENCODING",
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size", "bfloat16", "float16", "float32", "float64", "int32", "int64"},
    "pathlib": {"PosixPath"},
}
"""All that the index of a checkpoint names, by module: what torch.distributed.checkpoint writes of tensors."""


class _Index(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in OF_A_CHECKPOINT.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"Weights only load failed: the checkpoint's index names {module}.{name}")


def check_index(checkpoint: str | None) -> None:
    """Raises UnpicklingError where the index of a sharded checkpoint would run code: torch unpickles it unchecked."""
    for file in Path(checkpoint).glob("*/.metadata") if checkpoint else ():
        with file.open("rb") as stream:
            _Index(stream).load()


def all_finite(model: PreTrainedModel) -> bool:
    """Whether all weights, of a shared model those of this process, are finite."""
    return all(bool(torch.isfinite(_local(weight)).all()) for weight in model.parameters())


def _local(weight: torch.Tensor) -> torch.Tensor:
    return weight.to_local() if isinstance(weight, DTensor) else weight


def save(trainer: Trainer, job: dict[str, Any], result: dict[str, Any]) -> None:
    """The trained model and the result, sealed together."""
    folder = Path(job["save_to"])
    save_plain(trainer, job, folder)
    if trainer.is_world_process_zero():
        # A pickle that no engine reads and that names this machine's paths.
        (folder / "training_args.bin").unlink(missing_ok=True)
        seal(folder, job["run"], result)
    all_here()


def save_plain(trainer: Trainer, job: dict[str, Any], folder: Path) -> None:
    """Write the trained model to `folder`, by the first process; the others give their shares of it.

    A shared model is gathered weight by weight: only the first process ever holds the whole, in host memory.
    """
    if job["lora"]:
        _save_merged(trainer, job, folder)
    elif job["order"]["kind"] == "FSDP":
        weights = trainer.accelerator.get_state_dict(trainer.model)
        tied = trainer.model.all_tied_weights_keys  # gathered as weights of their own
        if trainer.is_world_process_zero():
            own = {name: weight for name, weight in weights.items() if name not in tied}
            trainer.model.save_pretrained(folder, state_dict=own)
    else:
        trainer.save_model(str(folder))
        return
    if trainer.is_world_process_zero():
        trainer.processing_class.save_pretrained(folder)
        verify(folder, job)


def _save_merged(trainer: Trainer, job: dict[str, Any], folder: Path) -> None:
    """The model at the round's start with the trained adapters added to its weights."""
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    shares = get_peft_model_state_dict(trainer.accelerator.unwrap_model(trainer.model))
    whole = {
        name: (share.full_tensor() if isinstance(share, DTensor) else share).detach().cpu()
        for name, share in shares.items()
    }
    if not trainer.is_world_process_zero():
        return
    model = get_peft_model(load(job), LoraConfig(**job["lora"]))
    if lost := set_peft_model_state_dict(model, whole).unexpected_keys:
        raise ValueError(f"adapters that the model has no place for: {', '.join(lost[:3])}")
    model.merge_and_unload().save_pretrained(folder)


def verify(folder: Path, job: dict[str, Any]) -> None:
    """Load `folder` as the next round will. Raises ValueError where weights are missing, left over or misshapen."""
    _, told = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype="auto",
        use_safetensors=True,
        trust_remote_code=job["trust_remote_code"],
        output_loading_info=True,
    )
    AutoTokenizer.from_pretrained(folder, trust_remote_code=job["trust_remote_code"])
    wrong = {what: sorted(map(str, names))[:3] for what, names in told.items() if names}
    if wrong:
        raise ValueError(f"the merged model does not load whole: {wrong}")
