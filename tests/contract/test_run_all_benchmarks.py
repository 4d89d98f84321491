"""The harness of the benchmarks, run as a user does, on tiny scripts in a folder of their own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RUN_ALL = Path(__file__).parents[2] / "benchmarks" / "run_all.py"
CLAIM = """
import json
print("a table for people")
print(json.dumps({{"claim": "{claim}", "value": {value}, "unit": "s", "bar": 1, "holds": {holds}, "machine": "2 cores",
                   "spread": [0.1, 0.3]}}))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The harness beside a claim that holds; helper modules are none of its business."""
    shutil.copy(RUN_ALL, tmp_path)
    (tmp_path / "loopback_teacher.py").write_text("raise SystemExit('a helper was run')")
    write(tmp_path, "quick", CLAIM.format(claim="it is quick", value=0.2, holds=True))
    return tmp_path


def write(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.py").write_text(text)


def bench(folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, folder / "run_all.py", *names], capture_output=True, text=True, timeout=60)


def results(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_a_claim_that_holds_is_written_down_with_the_command_that_prints_it(folder):
    assert bench(folder).returncode == 0
    (record,) = results(folder)
    assert (record["script"], record["command"]) == ("quick", "python benchmarks/quick.py")
    assert (record["result"]["claim"], record["result"]["value"]) == ("it is quick", 0.2)
    (row,) = [line for line in (folder / "RESULTS.md").read_text().splitlines() if "it is quick" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:7] == [
        "it is quick", "0.2 [0.1, 0.3]", "s", "1", "yes", "2 cores", "`python benchmarks/quick.py`",
    ]  # fmt: skip
    assert cells[7] == record["date"]


def test_a_claim_that_does_not_hold_is_shown_and_told_by_the_exit_status(folder):
    write(folder, "slow", CLAIM.format(claim="it is slow", value=2, holds=False))
    done = bench(folder)
    assert done.returncode == 1
    assert done.stdout.endswith("1 of 2 hold, not slow\n")
    assert "| it is slow | 2 [0.1, 0.3] | s | 1 | **no** |" in (folder / "RESULTS.md").read_text()


@pytest.mark.parametrize(
    ("script", "why"), [("raise SystemExit(3)", "exit status 3"), ("print('nothing')", "no claim in its output")]
)
def test_a_script_that_fails_hinders_no_other(folder, script, why):
    write(folder, "broken", script)
    assert bench(folder).returncode == 1
    broken, quick = results(folder)
    assert broken["failed"] == why
    assert quick["result"]["holds"]
    assert f"| broken **failed**: {why} |" in (folder / "RESULTS.md").read_text()


def test_every_claim_of_a_script_is_written_down(folder):
    write(folder, "quick", "".join(CLAIM.format(claim=f"claim {n}", value=n, holds=True) for n in range(3)))
    bench(folder)
    assert [record["result"]["claim"] for record in results(folder)] == ["claim 0", "claim 1", "claim 2"]


def test_one_script_alone_replaces_its_own_lines_only(folder):
    write(folder, "other", CLAIM.format(claim="the other", value=1, holds=False))
    bench(folder)
    before = results(folder)
    write(folder, "quick", CLAIM.format(claim="it is quicker", value=0.1, holds=True))
    write(folder, "other", "raise SystemExit('it was run')")
    assert bench(folder, "quick").returncode == 0
    after = results(folder)
    assert after[0] == before[0]
    assert [record["result"]["claim"] for record in after] == ["the other", "it is quicker"]


def test_a_script_that_is_gone_leaves_no_line(folder):
    write(folder, "other", CLAIM.format(claim="the other", value=1, holds=True))
    bench(folder)
    (folder / "other.py").unlink()
    bench(folder)
    assert [record["script"] for record in results(folder)] == ["quick"]


def test_an_unknown_name_runs_nothing(folder):
    done = bench(folder, "quikc")
    assert done.returncode == 2
    assert "quikc: no such script; there are quick" in done.stderr
    assert not (folder / "results.jsonl").exists()
