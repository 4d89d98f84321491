"""How long `prosetting --help` takes, beside an interpreter that does nothing. Bar: 0.4 s (median of 11 runs)."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time

RUNS = 11
BAR_S = 0.4
HELP = "import sys; from prosetting.cli.main import main; sys.exit(main(['--help']))"


def seconds_of(code: str) -> list[float]:
    """Wall time of RUNS runs of `python -c code`, after one that fills the caches."""
    taken = []
    for _ in range(RUNS + 1):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - started)
    return taken[1:]


def main() -> None:
    nothing, help_ = seconds_of("pass"), seconds_of(HELP)
    value = statistics.median(help_)
    print(f"python -c pass     {statistics.median(nothing):.3f} s [{min(nothing):.3f}, {max(nothing):.3f}]")
    print(f"prosetting --help  {value:.3f} s [{min(help_):.3f}, {max(help_):.3f}]")
    result = {
        "claim": "prosetting --help starts in a blink",
        "value": round(value, 3),
        "unit": "s, median wall time",
        "bar": BAR_S,
        "holds": value <= BAR_S,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "spread": [round(min(help_), 3), round(max(help_), 3)],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
