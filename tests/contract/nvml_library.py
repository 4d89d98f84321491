"""A driver for machines without a GPU: a shared library of NVML's entry points that says what a text file says.

nvidia-ml-py loads it as it loads NVIDIA's own, because the loader finds `libnvidia-ml.so.1` on LD_LIBRARY_PATH. That is
read when a process starts, so whoever is to see these GPUs is a process of its own. Lines of the file, in bytes and %:

    gpu TOTAL USED UTILISATION
    process GPU PID MEMORY
    broken CODE                 (nvmlInit answers with that code)
    hidden GPU                  (this process may not use it)
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

GIB = 2**30
SOURCE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { unsigned long long total, used; unsigned utilisation; } card_t;
typedef struct { unsigned card, pid; unsigned long long memory; } holder_t;
typedef struct { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; } info_t;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_t;
typedef struct { unsigned gpu, memory; } utilisation_t;

static card_t cards[16];
static holder_t holders[64];
static unsigned card_count, holder_count;
static int hidden;

int nvmlInitWithFlags(unsigned flags) {
    char line[200];
    int code = 0;
    FILE *file = fopen(getenv("NVML_STATE"), "r");
    if (!file) return 9; /* the driver is not loaded */
    card_count = holder_count = 0;
    hidden = -1;
    while (fgets(line, sizeof line, file)) {
        card_t *card = &cards[card_count];
        holder_t *holder = &holders[holder_count];
        if (sscanf(line, "gpu %llu %llu %u", &card->total, &card->used, &card->utilisation) == 3) card_count++;
        if (sscanf(line, "process %u %u %llu", &holder->card, &holder->pid, &holder->memory) == 3) holder_count++;
        sscanf(line, "broken %d", &code);
        sscanf(line, "hidden %d", &hidden);
    }
    fclose(file);
    return code;
}
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return code == 18 ? "Driver/library version mismatch" : "an error"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = card_count; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    *device = &cards[index];
    return (int)index == hidden ? 4 : 0; /* no permission */
}
int nvmlDeviceGetUUID(void *device, char *text, unsigned size) {
    snprintf(text, size, "GPU-0000-%ld", (long)((card_t *)device - cards));
    return 0;
}
int nvmlDeviceGetName(void *device, char *text, unsigned size) { snprintf(text, size, "Paper GPU"); return 0; }
int nvmlDeviceGetMemoryInfo_v2(void *device, memory_t *memory) {
    card_t *card = device;
    memory->total = card->total; memory->used = card->used; memory->free = card->total - card->used;
    return 0;
}
int nvmlDeviceGetUtilizationRates(void *device, utilisation_t *rates) {
    rates->gpu = ((card_t *)device)->utilisation;
    return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, info_t *infos) {
    unsigned card = (card_t *)device - cards, found = 0, room = infos ? *count : 0;
    for (unsigned i = 0; i < holder_count; i++) {
        if (holders[i].card != card) continue;
        if (found < room) infos[found] = (info_t){holders[i].pid, holders[i].memory, 0, 0};
        found++;
    }
    *count = found;
    return found > room ? 7 : 0; /* insufficient size */
}
"""


class PaperDriver:
    """The library, and the file that it reads."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler (cc): a driver for machines without a GPU cannot be built")
        self._state = folder / "nvml.txt"
        self._folder = folder
        source = folder / "nvml.c"
        source.write_text(SOURCE)
        library = folder / "libnvidia-ml.so.1"
        subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)

    def says(self, *lines: str) -> None:
        """Whole or not at all: a process may be reading it."""
        new = self._state.with_suffix(".new")
        new.write_text("".join(f"{line}\n" for line in lines))
        new.replace(self._state)

    @property
    def env(self) -> dict[str, str]:
        """What a process must be started with to see these GPUs."""
        before = os.environ.get("LD_LIBRARY_PATH")
        path = f"{self._folder}:{before}" if before else str(self._folder)
        return {"LD_LIBRARY_PATH": path, "NVML_STATE": str(self._state)}


def card(total_gib: float = 80, used_gib: float = 0, utilisation: int = 0) -> str:
    return f"gpu {round(total_gib * GIB)} {round(used_gib * GIB)} {utilisation}"


def holder(gpu: int, pid: int, memory_gib: float) -> str:
    return f"process {gpu} {pid} {round(memory_gib * GIB)}"
