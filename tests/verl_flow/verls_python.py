"""The interpreter of verl's real environment, and scripts run by it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
IN_VERL, SUBSTITUTE = HERE / "in_verl", HERE / "cpu_substitute"
VERL_PYTHON = Path(os.environ.get("VERL_PYTHON") or HERE.parents[1] / ".venv-verl" / "bin" / "python").absolute()
ON_CPU = {"VERL_PLATFORM": "cpu", "VERL_USE_EXTERNAL_MODULES": "verl_on_cpu", "VERL_ENGINE_DEVICE": "cuda"}
"""What makes verl use the CPU substitute, with SUBSTITUTE on PYTHONPATH."""


def in_verl(script: str, *arguments: str, asked: Any = None, env: dict[str, str] | None = None) -> str:
    """Run one of the scripts of `in_verl` in verl's environment; what it printed."""
    done = subprocess.run(
        [VERL_PYTHON, IN_VERL / script, *arguments],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **(env or {})},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def told(output: str) -> Any:
    """The JSON of the last line: verl prints much before it."""
    return json.loads(output.splitlines()[-1])
