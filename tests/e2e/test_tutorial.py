"""docs/tutorial.md, typed again from a fresh clone: what it shows is what comes, numbers aside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from whole_runs import clean_env

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "contract"))

from documented_commands import blocks, shown_and_not_there  # noqa: E402


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_tutorial_from_a_fresh_clone_says_what_it_shows(tmp_path):
    clone = tmp_path / "prosetting"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    (clone / ".venv").symlink_to(Path(sys.prefix))
    installed = Path(sys.prefix) / ".installed"
    if not installed.exists():
        pytest.skip("the tests run in an environment that `make install` did not make")
    for name in ("requirements.txt", "pyproject.toml"):  # nothing to install anew
        os.utime(clone / name, (0, installed.stat().st_mtime - 1))
    environment = clean_env() | {
        "PATH": f"{clone}/.venv/bin:{clean_env()['PATH']}",
        "PYTHONPATH": str(clone / "src"),
    }
    for block in blocks(ROOT / "docs" / "tutorial.md"):
        commands = block.text.replace("git clone YOUR_COPY_OF_THIS_REPOSITORY prosetting && cd prosetting", "")
        if block.output is None:
            continue
        done = subprocess.run(
            ["bash", "-c", commands],
            cwd=clone,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
        assert shown_and_not_there(block.output, done.stdout) == [], done.stdout
