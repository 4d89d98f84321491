import subprocess
import sys

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
