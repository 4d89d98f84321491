"""What NVIDIA's driver says of this machine's GPUs, read through NVML (nvidia-ml-py). Opens no CUDA context."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from prosetting.errors import GpuError


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that computes on a GPU. In a container the driver may give the host's pid, or no process at all."""

    pid: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU at one moment. `index` counts in PCI order, as nvidia-smi does; `utilisation` is in percent, None where
    the GPU does not tell it."""

    index: int
    uuid: str
    name: str
    total_bytes: int
    used_bytes: int
    utilisation: int | None
    processes: tuple[GpuProcess, ...]


def read_gpus() -> tuple[Gpu, ...]:
    """All GPUs of the machine that a cluster leaves this process; none without a driver. Raises GpuError when there is
    a driver that does not answer."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        return ()
    except pynvml.NVMLError as error:
        raise _no_answer(error) from None
    try:
        found = [_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
        return tuple(gpu for gpu in found if gpu is not None)
    except pynvml.NVMLError as error:
        raise _no_answer(error) from None
    finally:
        pynvml.nvmlShutdown()


def _gpu(nvml: Any, index: int) -> Gpu | None:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
    except nvml.NVMLError_NoPermission:
        return None
    memory = _memory(nvml, handle)
    utilisation = None
    with contextlib.suppress(nvml.NVMLError_NotSupported):  # cards split by MIG
        utilisation = int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    return Gpu(
        index=index,
        uuid=str(nvml.nvmlDeviceGetUUID(handle)),
        name=str(nvml.nvmlDeviceGetName(handle)),
        total_bytes=int(memory.total),
        used_bytes=int(memory.used),
        utilisation=utilisation,
        processes=tuple(
            GpuProcess(int(process.pid), int(process.usedGpuMemory or 0))
            for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        ),
    )


def _memory(nvml: Any, handle: Any) -> Any:
    """Without what the driver keeps for itself, where it tells that apart."""
    try:
        return nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    except (nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NotSupported):
        return nvml.nvmlDeviceGetMemoryInfo(handle)


def _no_answer(error: Exception) -> GpuError:
    return GpuError(
        f"the NVIDIA driver does not answer: {error}",
        next_step="see what nvidia-smi says (after an update of the driver the machine must be started again)",
    )
