import json
import platform
import subprocess
import sys
import threading

import pytest

from prosetting.config import Settings
from prosetting.core.workspace import Workspace, WorkspaceLock
from prosetting.errors import WorkspaceError, WorkspaceInUse

HOLD = """
import sys, time
from pathlib import Path
from prosetting.core.workspace import Workspace, WorkspaceLock
with WorkspaceLock(Workspace(Path(sys.argv[1]), Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def workspace(tmp_path):
    found = Workspace.of(Settings(solver_model_path="m", workspace_dir=tmp_path / "run"))
    found.create()
    return found


def test_a_second_run_is_refused_and_told_who_holds_the_workspace(workspace):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(workspace.root)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(WorkspaceInUse, match=f'"pid": {holder.pid}') as refused, WorkspaceLock(workspace):
            pass
        assert refused.value.exit_code == 4
    finally:
        holder.kill()
        holder.wait()


def test_the_lock_of_a_killed_run_is_taken_over(workspace):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(workspace.root)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    with WorkspaceLock(workspace):
        pass


def test_a_workspace_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    settings = Settings(solver_model_path="m", workspace_dir=tmp_path / "file" / "run")
    with pytest.raises(WorkspaceError, match="cannot be written"):
        Workspace.of(settings).create()


def test_a_name_left_by_a_killed_run_is_not_taken_for_the_holder(workspace):
    """The lock is held by one that has not written its name yet; the file names a process that is gone."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = json.dumps({"pid": gone.pid, "host": platform.node(), "since": "then"})
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(workspace.root)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        workspace.lock_file.write_text(left)
        named = left.replace(str(gone.pid), str(holder.pid))
        threading.Timer(0.2, lambda: workspace.lock_file.write_text(named)).start()
        with pytest.raises(WorkspaceInUse, match=f'"pid": {holder.pid}'), WorkspaceLock(workspace):
            pass
    finally:
        holder.kill()
        holder.wait()


def test_what_is_damaged_is_kept_in_quarantine_under_names_of_their_own(workspace):
    for content in ("one", "two"):
        path = workspace.round_data(1, "rewards")
        path.write_text(content)
        kept = workspace.quarantine(path, "torn")
        assert not path.exists()
        assert kept.read_text() == content
    names = sorted(path.name for path in (workspace.root / "quarantine").iterdir())
    assert names == ["data__round_01_rewards.json.1", "data__round_01_rewards.json.2"]
