"""Saves a model as verl does on two ranks: FSDP2 shards on gloo, by verl's own checkpoint manager.

python save_shards.py MODEL FOLDER   (with the CPU substitute's environment)
"""

import os
import sys

import torch
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForCausalLM, AutoTokenizer

RANKS = 2


def save(rank: int, model_path: str, folder: str) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": str(RANKS)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": os.environ["SHARDS_PORT"]}
    from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager
    from verl.utils.distributed import initialize_global_process_group_ray

    initialize_global_process_group_ray()
    mesh = torch.distributed.init_device_mesh("cpu", (RANKS,), mesh_dim_names=("fsdp",))
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters())
    manager = FSDPCheckpointManager(
        model,
        optimizer,
        lr_scheduler=torch.optim.lr_scheduler.ConstantLR(optimizer),
        processing_class=AutoTokenizer.from_pretrained(model_path),
    )
    manager.save_checkpoint(folder, global_step=2)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.multiprocessing.spawn(save, args=tuple(sys.argv[1:3]), nprocs=RANKS)
