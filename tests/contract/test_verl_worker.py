"""What is started in verl's environment, with this Python in its place: it needs nothing of ProSetting, and it ends
with the run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from prosetting.core.children import RUN_PID
from prosetting.core.orphans import end_processes_with
from prosetting.trainers.verl_job import LAUNCHER, REWARD_FILE

ALONE = {"PATH": os.environ["PATH"]}


def test_a_module_runs_as_main_with_its_arguments_and_no_folder_of_ours_to_import_from(tmp_path: Path) -> None:
    code = "import sys; print(__name__, sys.argv[1:], [p for p in sys.path if p.endswith('trainers')])\n"
    (tmp_path / "told.py").write_text(code)
    done = subprocess.run(
        [sys.executable, LAUNCHER, "run", "told", "a=1", "+b='x y'"],
        capture_output=True,
        text=True,
        check=True,
        env=ALONE | {"PYTHONPATH": str(tmp_path)},
    )
    assert done.stdout == "__main__ ['a=1', \"+b='x y'\"] []\n"


def test_it_says_what_is_installed_where_it_runs() -> None:
    asked = json.dumps({"packages": ["pytest", "no-such-package"], "overrides": None})
    done = subprocess.run([sys.executable, LAUNCHER, "check"], input=asked, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["packages"]["pytest"]
    assert found["packages"]["no-such-package"] is None


def test_the_reward_file_needs_the_standard_library_only() -> None:
    code = f"import runpy, sys; runpy.run_path({str(REWARD_FILE)!r}); print('prosetting' in sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_it_ends_with_the_run_and_what_left_its_group_is_found_by_a_mark(tmp_path: Path) -> None:
    """A module that starts a process in a session of its own, as Ray does, under a run that is killed."""
    (tmp_path / "sleeps.py").write_text(
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        "print(child.pid, flush=True)\ntime.sleep(600)\n"
    )
    run = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    env = ALONE | {"PYTHONPATH": str(tmp_path), RUN_PID: str(run.pid), "TEST_MARK": str(tmp_path)}
    child = subprocess.Popen(
        [sys.executable, LAUNCHER, "run", "sleeps"], stdout=subprocess.PIPE, text=True, env=env, start_new_session=True
    )
    assert child.stdout
    apart = int(child.stdout.readline())
    run.kill()
    run.wait()
    assert child.wait(20) == -9
    assert Path(f"/proc/{apart}").exists()
    end_processes_with("TEST_MARK", str(tmp_path))
    until = time.monotonic() + 10
    while Path(f"/proc/{apart}").exists() and "Z" not in Path(f"/proc/{apart}/stat").read_text().split():
        assert time.monotonic() < until
        time.sleep(0.05)
