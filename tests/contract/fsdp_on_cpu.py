"""A substitute for accelerate's test of what a GPU machine is: real FSDP2 on gloo, on CPUs. For tests only.

accelerate starts FSDP on accelerators only and turns the order into DDP elsewhere. This sets the type before the
worker starts; sharding, collectives, checkpoints and merging are torch's and accelerate's own.
Run in place of the worker: `accelerate launch … -m fsdp_on_cpu --job FILE`. With KILL_AT=N in the environment the
second process kills itself at step N, between two checkpoints.
"""

from __future__ import annotations

import functools
import os
import signal
from typing import Any

from accelerate.state import AcceleratorState, DistributedType, PartialState
from transformers import TrainerState

from prosetting.trainers import worker_dpo, worker_dpo_callbacks, worker_process

_init = AcceleratorState.__init__


@functools.wraps(_init)
def _with_fsdp(self: AcceleratorState, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
    _init(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None and os.environ.get("ACCELERATE_USE_FSDP") == "true":
        self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        if self._mixed_precision != "no":
            fsdp_plugin.set_mixed_precision(self._mixed_precision)
        self.fsdp_plugin = fsdp_plugin


class _Progress(worker_dpo_callbacks.Progress):
    def on_step_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if os.environ.get("KILL_AT") == str(state.global_step) and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    worker_dpo_callbacks.SAVING_SHARE = 1e9  # whatever saving costs here, steps alone decide
    worker_dpo.Progress = _Progress
    AcceleratorState.__init__ = _with_fsdp
    worker_process.main(worker_dpo.train)
