"""What `prosetting doctor` looks at. Each check yields what it found and, where something is to do, the next step."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from prosetting.config import Settings
from prosetting.core.gpu_manager import TAKEN_SHARE, held_by_others
from prosetting.core.machine import fit_to_machine, this_machine
from prosetting.core.nvml import Gpu
from prosetting.core.text import printable
from prosetting.core.workspace import Workspace
from prosetting.errors import ConfigError, ProSettingError
from prosetting.settings_sources import LoadedSettings

Level = Literal["good", "warning", "wrong"]
SIGNS: dict[Level, str] = {"good": "✅", "warning": "⚠️ ", "wrong": "❌"}
NEEDED = (
    "aiohttp",
    "jinja2",
    "math-verify",
    "nvidia-ml-py",
    "psutil",
    "pyarrow",
    "pydantic",
    "python-dotenv",
    "rich",
    "tenacity",
    "typer",
)
NEEDED_FOR_DASHBOARD = ("starlette", "uvicorn")
NEEDED_TO_TRAIN = ("accelerate", "datasets", "torch", "transformers", "trl")
IMPORT_DEADLINE_S = 300
OLDEST_PYTHON = (3, 11)
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at."""

    name: str
    level: Level
    found: str
    next_step: str = ""


def line(check: Check) -> str:
    step = f"\n      → {check.next_step}" if check.next_step else ""
    return printable(f"{SIGNS[check.level]} {check.name}: {check.found}{step}")


def all_checks(loaded: LoadedSettings, problem: ConfigError | None, *, quick: bool) -> Iterator[Check]:
    """All checks in the order of a run. `problem`: what is wrong with the settings, `loaded` then holds defaults."""
    settings = loaded.settings
    yield _python()
    yield from _packages()
    if not quick:
        yield _imports()
    yield _sqlite()
    yield Check("Settings", "wrong", problem.what, problem.next_step) if problem else Check("Settings", "good", "valid")
    yield from (Check("Keys", "warning", warning) for warning in loaded.warnings)
    yield from _machine(loaded, quick=quick)
    yield from _workspace(settings)
    yield _model(settings)
    yield from _solver_servers(settings, quick=quick)
    yield from _ray(settings, quick=quick)
    yield from _questions(settings)
    yield from _teachers(settings, quick=quick)


def _python() -> Check:
    found = f"{'.'.join(map(str, sys.version_info[:3]))} at {sys.executable}"
    if sys.version_info < OLDEST_PYTHON:
        return Check("Python", "wrong", found, "ProSetting needs 3.11 or newer: make PYTHON=python3.12 install")
    return Check("Python", "good", found)


def _packages() -> Iterator[Check]:
    for name, packages, level, extra in (
        ("Packages", NEEDED, "wrong", ""),
        ("Training packages", NEEDED_TO_TRAIN, "wrong", "[train]"),
        ("Dashboard", NEEDED_FOR_DASHBOARD, "warning", "[dashboard]"),
    ):
        versions = {package: _version(package) for package in packages}
        missing = [package for package, version in versions.items() if version is None]
        if missing:
            step = f"pip install -r requirements.txt, or: pip install 'prosetting{extra}'"
            yield Check(name, "wrong" if level == "wrong" else "warning", f"not installed: {', '.join(missing)}", step)
        else:
            yield Check(name, "good", ", ".join(f"{package} {version}" for package, version in versions.items()))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _imports() -> Check:
    """Loads the training packages in a child, where a broken installation shows."""
    code = f"import {', '.join(NEEDED_TO_TRAIN)}; print('CUDA' if torch.cuda.is_available() else 'CPU')"
    # -P: a folder named `datasets` in the current one must not stand in for the package.
    command = [sys.executable, "-P", "-W", "ignore", "-c", code]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_DEADLINE_S, check=False)
    except subprocess.TimeoutExpired:
        return Check("Loading them", "wrong", f"not done within {IMPORT_DEADLINE_S} s", "try again on an idle machine")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Check("Loading them", "wrong", last, "pip install -r requirements.txt")
    return Check("Loading them", "good", f"works; torch computes on the {done.stdout.strip().splitlines()[-1]}")


def _sqlite() -> Check:
    from prosetting.core.journal_file import journal_mode

    return Check("SQLite", "good", f"{sqlite3.sqlite_version}, journal mode {journal_mode()}")


def _machine(loaded: LoadedSettings, *, quick: bool) -> Iterator[Check]:
    machine = this_machine()
    cores = f"{machine.cpu_count} CPU cores"
    memory = f"{_free_memory_bytes() / GIB:.1f} GiB of memory free"
    if machine.gpus:
        yield Check("Machine", "good", f"{len(machine.gpus)} GPUs; {cores}; {memory}")
        yield from map(_gpu, machine.gpus)
    elif machine.gpu_problem:
        step = "see what nvidia-smi says; after an update of the driver the machine must be started again"
        yield Check("Machine", "wrong", f"{machine.gpu_problem}; {cores}", step)
    else:
        step = "small solvers only; for others use a machine where nvidia-smi lists GPUs"
        yield Check("Machine", "warning", f"no GPU: sampling and training run on {cores}; {memory}", step)
    try:
        settings, notices = fit_to_machine(loaded, machine)
    except ConfigError as error:
        yield Check("GPU settings", "wrong", error.what, error.next_step)
        return
    yield Check("GPU settings", "good", "; ".join(notices) or "fit this machine")
    if settings.first_training_round <= settings.total_rounds:
        yield _verl(settings, quick=quick) if settings.trains_with_verl else _training(settings)


def _training(settings: Settings) -> Check:
    from prosetting.trainers.launch import check_training, in_words

    try:
        check_training(settings)
    except ConfigError as error:
        return Check("Training settings", "wrong", error.what, error.next_step)
    return Check("Training settings", "good", in_words(settings))


def _gpu(gpu: Gpu) -> Check:
    use = f", computing {gpu.utilisation} % of the time" if gpu.utilisation is not None else ""
    found = f"{gpu.name}, {gpu.used_bytes / GIB:.1f} of {gpu.total_bytes / GIB:.1f} GiB in use{use}"
    if held_by_others(gpu, ()) <= TAKEN_SHARE * gpu.total_bytes:
        return Check(f"GPU {gpu.index}", "good", found)
    pids = ", ".join(str(process.pid) for process in gpu.processes) or "not named by the driver"
    step = f"processes on it: {pids}. A run refuses a GPU that is in use, unless GPU_SHARING=true"
    return Check(f"GPU {gpu.index}", "warning", found, step)


def _free_memory_bytes() -> int:
    try:
        import psutil
    except ImportError:
        return 0  # told under Packages
    return int(psutil.virtual_memory().available)


def _workspace(settings: Settings) -> Iterator[Check]:
    from prosetting.managers.room import weights_bytes

    workspace = Workspace.of(settings)
    there = next(folder for folder in (workspace.root, *workspace.root.parents) if folder.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        yield Check(
            "Workspace", "wrong", f"{there} cannot be written", "set WORKSPACE_DIR to a folder that you may write"
        )
        return
    holds = "holds a run (prosetting status)" if workspace.journal.exists() else "free for a new run"
    yield Check("Workspace", "good", f"{workspace.root}, {holds}")
    free = shutil.disk_usage(there).free
    weights = weights_bytes(Path(settings.solver_model_path).expanduser()) if settings.solver_model_path else 0
    need = weights * max(settings.total_rounds - settings.first_training_round + 1, 1) + GIB
    room = f"{free / GIB:.1f} GiB free at {there}"
    if free < need:
        step = f"a run of this model may need {need / GIB:.1f} GiB: free some, or set WORKSPACE_DIR to another disk"
        yield Check("Disk", "warning", room, step)
    else:
        yield Check("Disk", "good", room)


def _model(settings: Settings) -> Check:
    from prosetting.collectors.local_solver import check_model_folder
    from prosetting.core.model_folder import is_hub_name
    from prosetting.managers.open_engines import needs_model_here

    model = settings.solver_model_path
    if model and not needs_model_here(settings):
        return Check("Solver model", "good", f"{model}, sampled by servers and not trained")
    if not model:
        step = "put SOLVER_MODEL_PATH=… into .env: a Hugging Face model folder, or a hub name such as Qwen/Qwen3-8B"
        return Check("Solver model", "wrong", "SOLVER_MODEL_PATH is not set", step)
    try:
        check_model_folder(model)
    except ProSettingError as error:
        return Check("Solver model", "wrong", error.what, error.next_step)
    if is_hub_name(model):
        return Check("Solver model", "warning", f"{model}, a hub name", "it is fetched when the run starts")
    return Check("Solver model", "good", model)


def _verl(settings: Settings, *, quick: bool) -> Check:
    """verl's environment. Only whether it is there when `quick`."""
    from prosetting.trainers.verl_environment import check_verl, verl_python
    from prosetting.trainers.verl_job import in_words

    try:
        python = verl_python(settings)
        if not quick:
            check_verl(settings)
    except ConfigError as error:
        return Check("Training settings", "wrong", error.what, error.next_step)
    return Check("Training settings", "good", f"{in_words(settings)}, at {python}{' (not asked)' if quick else ''}")


def _solver_servers(settings: Settings, *, quick: bool) -> Iterator[Check]:
    from prosetting.collectors.solver_engines import ENGINES, engine_of

    engine = engine_of(settings)
    if engine is ENGINES["transformers"]:
        return
    where = ", ".join(settings.solver_base_urls) or f"{settings.solver_engine}, started by the run"
    if quick:
        yield Check("Solver servers", "good", f"{where} (not called)")
        return
    try:
        engine.check(settings)
    except ProSettingError as error:
        yield Check("Solver servers", "wrong", error.what, error.next_step)
        return
    yield Check("Solver servers", "good", f"{where}{', answering' if settings.solver_base_urls else ''}")


def _ray(settings: Settings, *, quick: bool) -> Iterator[Check]:
    from prosetting.core.ray_cluster import check_cluster, demands_of

    demands, where = demands_of(settings), settings.ray_cluster_address or "started on this machine"
    if not demands:
        return
    if quick:
        yield Check("Ray cluster", "good", f"{where} (not joined)")
        return
    try:
        for demand in demands:
            check_cluster(settings, demand)
    except ProSettingError as error:
        yield Check("Ray cluster", "wrong", error.what, error.next_step)
        return
    yield Check("Ray cluster", "good", f"{where}, with room for {' and '.join(demand.what for demand in demands)}")


def _questions(settings: Settings) -> Iterator[Check]:
    from prosetting.collectors.data_normalizer import load_questions

    for name, file in (("Questions", settings.questions_file), ("Held-out questions", settings.validation_data_file)):
        if file is None:
            step = "set VALIDATION_DATA_FILE to see whether the solver gets better"
            yield Check(name, "warning", "none: checkpoints are not scored", step)
            continue
        try:
            questions = load_questions(file)
        except ProSettingError as error:
            yield Check(name, "wrong", error.what, error.next_step)
            continue
        open_ = sum(question.reference is None for question in questions)
        yield Check(name, "good", f"{len(questions)} in {file}, {open_} without reference")


def _teachers(settings: Settings, *, quick: bool) -> Iterator[Check]:
    """A probe of each, or, `quick`, where they are."""
    embedded = "embedded, offline: arithmetic only"
    if quick:
        yield Check("Teacher1", "good", f"{settings.teacher_base_url or embedded} (not called)")
        if settings.teacher2_base_url:
            yield Check("Teacher2", "good", f"{settings.teacher2_base_url} (not called)")
        return
    import asyncio

    from prosetting.managers.open_teachers import probe_teachers
    from prosetting.teachers.embedded_teacher import check_faults

    try:
        check_faults(settings.embedded_teacher_faults)
        with asyncio.Runner() as runner:
            for probe in probe_teachers(settings, runner):
                answers = f"{probe.where} has {probe.model}, answers after {probe.seconds:.1f} s"
                if probe.error:
                    yield Check(probe.teacher, "wrong", probe.error.what, probe.error.next_step)
                else:
                    yield Check(probe.teacher, "good", embedded if probe.embedded else answers)
    except ProSettingError as error:  # of the embedded one
        yield Check("Teacher1", "wrong", error.what, error.next_step)
