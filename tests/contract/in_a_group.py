"""The worker in a process group that somebody else has initialised, as an engine such as Ray Train does. For tests."""

from __future__ import annotations

import torch

from prosetting.trainers import worker_dpo, worker_process

if __name__ == "__main__":
    torch.distributed.init_process_group("gloo")
    worker_process.main(worker_dpo.train)
