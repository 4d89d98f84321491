"""Which process may use which GPU when, whether somebody else is on it, and whether its memory came back.

Sampling has PHYSICAL_SOLVER_GPU and training PHYSICAL_GRPO_GPU. Where the two overlap they take turns; where they do
not, neither is ended for the other. This process opens no CUDA context and keeps its environment as it is: what a
child may see is `gpu_env`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prosetting.core.nvml import Gpu, read_gpus
from prosetting.errors import GpuError

Phase = Literal["sampling", "training"]
SETTINGS: dict[Phase, str] = {"sampling": "PHYSICAL_SOLVER_GPU", "training": "PHYSICAL_GRPO_GPU"}
LEFT_SHARE = 0.01
"""Of a card's memory, what may still be held once a phase is over."""
TAKEN_SHARE = 0.1
"""Of a card's memory, what others may hold of a GPU that is free: a desktop, a monitor."""
PATIENCE_S = 30.0  # the driver takes a moment to clean up after a process that was killed
SETTLE_S = 3.0
POLL_S = 0.2
GIB = 2**30


def gpu_env(gpu_ids: Iterable[int]) -> dict[str, str]:
    """What a child must see to use these GPUs and no other; none: the CPU. CUDA counts by speed unless told not to."""
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpu_ids))}


def usable_ids(gpus: Sequence[Gpu], environ: Mapping[str, str]) -> tuple[int, ...]:
    """The GPUs that this process may use: all, or those that CUDA_VISIBLE_DEVICES leaves it, as on a cluster."""
    allowed = environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is None:
        return tuple(gpu.index for gpu in gpus)
    names = [name.strip() for name in allowed.split(",")]
    return tuple(
        gpu.index for gpu in gpus if str(gpu.index) in names or any(n and gpu.uuid.startswith(n) for n in names)
    )


def held_by_others(gpu: Gpu, ours: Collection[int]) -> int:
    """Bytes that others hold of a GPU on which nothing of ours runs yet, whether or not the driver names them."""
    return max(0, gpu.used_bytes - sum(one.memory_bytes for one in gpu.processes if one.pid in ours))


def still_held(before: Gpu, now: Gpu, foreign: Collection[int]) -> int:
    """Bytes more than `before` a phase, less what changed in the hands of `foreign` processes."""

    def without_foreign(gpu: Gpu) -> int:
        return gpu.used_bytes - sum(one.memory_bytes for one in gpu.processes if one.pid in foreign)

    return max(0, without_foreign(now) - without_foreign(before))


@dataclass(frozen=True, slots=True)
class Allocation:
    """The GPUs of each phase by id; none means the CPU. `samples_here` False: somebody else's machine samples."""

    sampling: tuple[int, ...]
    training: tuple[int, ...]
    samples_here: bool = True

    @property
    def take_turns(self) -> bool:
        """Whether the sampler must be gone before training starts: they share a GPU, or the CPU."""
        if not self.samples_here:
            return False
        return bool(set(self.sampling) & set(self.training)) or not (self.sampling or self.training)


class GpuManager:
    """Watches the GPUs of one run. `ours` gives the pids that the run has started and that are alive."""

    def __init__(
        self,
        allocation: Allocation,
        ours: Callable[[], Collection[int]],
        *,
        read: Callable[[], tuple[Gpu, ...]] = read_gpus,
    ) -> None:
        self.allocation = allocation
        self._ours = ours
        self._read = read
        self._before: dict[Phase, list[Gpu]] = {}

    def check_free(self) -> None:
        """Raises GpuError, naming who holds it and which are free, where a GPU of ours is not there or taken. What an
        earlier run held until a moment ago has SETTLE_S to come back."""
        until = time.monotonic() + SETTLE_S
        while error := self._not_free():
            if time.monotonic() >= until:
                raise error
            time.sleep(POLL_S)

    def _not_free(self) -> GpuError | None:
        wanted = sorted({*self._ids("sampling"), *self._ids("training")})
        if not wanted:
            return None
        gpus, ours = self._read(), self._ours()
        free = [gpu.index for gpu in gpus if held_by_others(gpu, ours) <= TAKEN_SHARE * gpu.total_bytes]
        for index in wanted:
            gpu = next((gpu for gpu in gpus if gpu.index == index), None)
            which = " and ".join(name for phase, name in SETTINGS.items() if index in self._ids(phase))
            others = f"{which} to free GPUs ({', '.join(map(str, free)) or 'there is none now'})"
            if gpu is None:
                return GpuError(f"GPU {index} of {which} is not there any more", next_step=f"set {others}")
            if index not in free:
                return GpuError(
                    f"GPU {index} of {which} is taken: {_in_words(gpu, ours)}",
                    next_step=f"wait for it or end it, or set {others}; GPU_SHARING=true uses GPUs beside others",
                )
        return None

    def begin(self, phase: Phase) -> None:
        """Note what is on the GPUs of a phase before its children start. What was noted stands until it is given back:
        what is left of a phase that failed is not what was there before."""
        if (ids := self._ids(phase)) and phase not in self._before:
            self._before[phase] = [gpu for gpu in self._read() if gpu.index in ids]

    def wait_given_back(self, phase: Phase) -> None:
        """After the children of a phase have ended: until at most LEFT_SHARE of each card is still held. Raises
        GpuError, naming the process where the driver does, when that does not happen."""
        before = {gpu.index: gpu for gpu in self._before.get(phase, [])}
        until = time.monotonic() + PATIENCE_S
        while before:
            ours = self._ours()
            left = [gpu for gpu in self._read() if gpu.index in before]
            left = [gpu for gpu in left if _left(before[gpu.index], gpu, ours) > LEFT_SHARE * gpu.total_bytes]
            if not left:
                del self._before[phase]
                return
            if time.monotonic() >= until:
                raise _not_given_back(phase, left[0], _left(before[left[0].index], left[0], ours))
            time.sleep(POLL_S)

    def _ids(self, phase: Phase) -> tuple[int, ...]:
        if phase == "training":
            return self.allocation.training
        return self.allocation.sampling if self.allocation.samples_here else ()


def _left(before: Gpu, now: Gpu, ours: Collection[int]) -> int:
    there = {one.pid for one in before.processes}
    alive = {one.pid for one in now.processes if Path(f"/proc/{one.pid}").exists()}
    return still_held(before, now, (there | alive) - set(ours))


def _in_words(gpu: Gpu, ours: Collection[int]) -> str:
    held = f"{held_by_others(gpu, ours) / GIB:.1f} of {gpu.total_bytes / GIB:.1f} GiB are held"
    named = [f"{one.pid} ({_command_of(one.pid)})" for one in gpu.processes if one.pid not in ours]
    return f"{held} by process {', '.join(named)}" if named else f"{held} by processes that the driver does not name"


def _command_of(pid: int) -> str:
    try:
        return os.fsdecode(Path(f"/proc/{pid}/comm").read_bytes()).strip() or "no name"
    except OSError:
        return "not of this container"


def _not_given_back(phase: Phase, gpu: Gpu, held: int) -> GpuError:
    pids = ", ".join(str(one.pid) for one in gpu.processes) or "that the driver does not name"
    return GpuError(
        f"{phase} has ended and {held / GIB:.1f} of {gpu.total_bytes / GIB:.1f} GiB of GPU {gpu.index} are still held"
        f" (processes {pids})",
        next_step="end these processes, then run the same command again: it goes on from there",
    )
