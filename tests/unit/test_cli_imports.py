"""The command line starts without loading what only its commands need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = ("torch", "transformers", "trl", "datasets", "openai", "pyarrow", "pydantic", "rich", "jinja2", "starlette")
ROOT = Path(__file__).resolve().parents[2]
LAUNCHERS = ("run_training.py", "auto_trainer.py", "semi_auto_trainer_trl.py")
UTILS = ("utils/status_checker.py", "utils/test_runner.py")


def loaded_by(code: str) -> list[str]:
    probe = f"{code}\nimport sys; print('LOADED', *[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1].split()[1:]


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    assert loaded_by("import prosetting.cli, prosetting.cli.main") == []


def test_the_help_loads_nothing_heavy() -> None:
    assert loaded_by("from prosetting.cli.main import main; main(['--help'])") == []


def test_launchers_are_short_and_leave_the_module_path_alone() -> None:
    for name in (*LAUNCHERS, *UTILS):
        text = (ROOT / name).read_text()
        assert len(text.splitlines()) <= 15, name
        assert "sys.path" not in text, name


def test_launchers_work_from_any_folder_and_pass_flags_on(tmp_path: Path) -> None:
    for name in LAUNCHERS:
        command = [sys.executable, str(ROOT / name), "--no-such-flag"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 2, name
        assert "No such option: --no-such-flag" in done.stderr, name


def test_no_folder_beside_a_launcher_shadows_a_library() -> None:
    """Python puts a script's own folder first: a `datasets` there would stand in for Hugging Face's."""
    for folder in (ROOT, ROOT / "utils"):
        assert not {entry.stem for entry in folder.iterdir()} & set(HEAVY), folder
