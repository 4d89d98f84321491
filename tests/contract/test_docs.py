"""Every command in the documents: run where it is quick, parsed by the command line's own parser where it is not."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer.main
from documented_commands import DOCUMENTS, ROOT, Block, Command, blocks, skeleton

from prosetting.cli.main import app, main
from prosetting.config import ENV_NAMES, Settings, env_name
from prosetting.core.journal import Journal
from prosetting.managers.toy_loop import run_toy, toy_settings, write_toy_inputs
from prosetting.settings_sources import settings_of

ALL = [block for document in DOCUMENTS for block in blocks(document)]
COMMANDS = [command for block in ALL for command in block.commands]
LAUNCHERS = {
    "run_training.py": ("run",),
    "auto_trainer.py": ("run", "--mode", "auto"),
    "semi_auto_trainer_trl.py": ("run", "--mode", "semi"),
    "examples/own_curriculum.py": ("run",),
    "utils/status_checker.py": ("doctor",),
    "utils/test_runner.py": ("selfcheck", "--crash", "--quick"),
}
RUN_HERE = {"settings", "status", "report", "lineage", "doctor", "grade", "export", "init", "fork"}
ONLY_PARSED = {
    "run": "hours and a model; whole runs are in tests/e2e. With --dry-run it is run here",
    "compare": "two runs: tests/unit/test_compare.py",
    "eval": "a model: tests/contract/test_cli_eval.py",
    "train-generator": "a model: tests/contract/test_generator_trainer.py",
    "replay": "serves until it is ended: tests/contract/test_replay_server.py",
    "selfcheck": "minutes: tests/faults/test_crash_points.py",
    "ctl": "a live run: tests/e2e/test_asked_run.py. `ctl status` is run here",
    "dashboard": "serves until it is ended: tests/browser",
}
OTHERS = {"pip", "cp", "chmod", "cd", "ls", "df", "tail", "git", "export", "nvidia-smi", "curl", "hf", "grep", "kill"}
OTHERS |= {"source", "sleep", "ray", ".venv-verl/bin/python"}
OTHERS |= {".venv/bin/pytest", ".venv/bin/ruff", ".venv/bin/mypy", ".venv/bin/lint-imports", ".venv/bin/pre-commit"}


def as_prosetting(command: Command) -> tuple[str, ...] | None:
    """The arguments of `prosetting`, for whatever leads to it."""
    words = command.words
    if words[:1] in (("prosetting",), (".venv/bin/prosetting",)):
        return words[1:]
    if words[:1] == ("python",) and words[1] in LAUNCHERS:
        return (*LAUNCHERS[words[1]], *words[2:])
    return None


def parse(args: tuple[str, ...]) -> Any:
    """The context of a command line, or the parser's own error."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("prosetting", list(args))
    name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    return command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_every_command_is_one(command: Command) -> None:
    assert set(command.environment) <= {*ENV_NAMES, "PYTHONPATH", "OMP_NUM_THREADS"}
    if not command.words:
        return
    if (args := as_prosetting(command)) is not None:
        given = {name: value for name, value in parse(args).params.items() if name in Settings.model_fields and value}
        settings_of({env_name(name): value for name, value in given.items()} | command.environment)
        assert args[0] in RUN_HERE | set(ONLY_PARSED), f"run {args[0]} here, or say why not"
    elif command.words[0] == "make":
        targets = (ROOT / "Makefile").read_text()
        words = [word for word in command.words[1:] if "=" not in word]
        assert all(re.search(rf"^{word}:", targets, re.MULTILINE) for word in words)
    elif command.words[:2] == ("python", "-c"):
        compile(command.words[2], "documented", "exec")
    elif command.words[:2] == ("python", "-m"):
        assert importlib.util.find_spec(command.words[2])
    elif command.words[0] == "export":
        assert command.words[1].partition("=")[0] in ENV_NAMES
    else:
        assert command.words[0] in OTHERS
    for word in command.words:
        if re.fullmatch(r"(docs|tests|examples|benchmarks|utils)/[\w./]+", word):
            assert (ROOT / word).exists(), word


# Run here


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    write_toy_inputs(folder / "in")
    assert run_toy(toy_settings(folder / "in", folder / "run", rounds=2)) == 0
    return folder


@pytest.fixture
def place(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the documents speak of: a finished run, a model, questions, recorded attempts, a .env."""
    shutil.copytree(finished / "run", tmp_path / "run")
    shutil.copytree(finished / "in", tmp_path / "in")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shutil.copy(ROOT / "DataSet" / "seed_questions.json", tmp_path / "questions.json")
    shutil.copy(ROOT / ".env.example", tmp_path / ".env.example")
    row = '{"question": "What is 4+5?", "reference": "9", "response": "So \\\\boxed{9}"}\n'
    (tmp_path / "attempts.jsonl").write_text(row)
    values = {"SOLVER_MODEL_PATH": "in/base", "QUESTIONS_FILE": "in/questions.json", "WORKSPACE_DIR": "run"}
    (tmp_path / ".env").write_text("".join(f"{key}={value}\n" for key, value in values.items()))
    (tmp_path / ".env").chmod(0o600)
    monkeypatch.chdir(tmp_path)
    for name in ENV_NAMES:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def runs_here(command: Command) -> bool:
    args = as_prosetting(command) or ("",)
    quick = args[0] in RUN_HERE or "--dry-run" in args or args[:2] == ("ctl", "status")
    return quick and "WORKSPACE_DIR" not in " ".join(command.words)


def made_for(place: Path, args: tuple[str, ...]) -> list[str]:
    """The arguments with this place's own folders and ids."""
    made = list(args)
    for at, word in enumerate(args):
        before = args[at - 1] if at else ""
        if before == "--workspace-dir" and not (place / word).exists() and word != "runs/none":
            made[at] = "run"
        elif before == "--env-file" and args[0] != "init":
            made[at] = ".env"
        elif before == "--to":
            made[at] = str(place / "made" / Path(word).name)
        elif args[0] == "lineage" and at == 1:
            with Journal(place / "run" / "prosetting.db", read_only=True) as journal:
                made[at] = journal.pool_ids(1)[0]
    return made


def run_it(place: Path, args: tuple[str, ...]) -> int:
    if args[0] == "doctor":
        return main([*args, "--quick"])
    return main(made_for(place, args))


@pytest.mark.parametrize("command", [command for command in COMMANDS if runs_here(command)], ids=str)
def test_it_runs(
    command: Command, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in command.environment.items():
        monkeypatch.setenv(name, value)
    with open(os.devnull) as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        if command.words[1] == "init":
            (place / ".env").unlink()
        args = as_prosetting(command)
        assert args is not None
        code = run_it(place, args)
    captured = capsys.readouterr()
    expected = (0, 1) if args[0] == "doctor" else (0, 2) if "runs/none" in args or "init" in args else (0,)
    assert code in expected, captured.err
    assert "Traceback" not in captured.err


SHOWN = [block for block in ALL if block.output and block.commands and block.commands[0].document != "tutorial.md"]


@pytest.mark.parametrize("block", [block for block in SHOWN if as_prosetting(block.commands[0])], ids=str)
def test_it_says_what_the_document_shows(block: Block, place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for command in block.commands:
        args = as_prosetting(command)
        assert args is not None
        main(made_for(place, args))
    said = capfd.readouterr()
    found = [skeleton(line) for line in (said.out + said.err).splitlines()]
    assert block.output is not None
    for line in block.output.splitlines():
        assert skeleton(line) in found, said


def test_the_page_of_commands_is_that_of_the_command_line() -> None:
    from prosetting.cli.reference import reference_markdown

    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert page == reference_markdown(), "run: python -m prosetting.cli.reference > docs/commands.md"


def test_the_shell_completes_commands_and_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess
    import sys

    def completed(words: str) -> list[str]:
        environment = {**os.environ, "_PROSETTING_COMPLETE": "complete_bash", "COMP_WORDS": words}
        environment["COMP_CWORD"] = str(words.count(" "))
        command = [sys.executable, "-m", "prosetting"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()

    assert completed("prosetting sta") == ["status"]
    assert completed("prosetting run --total-r") == ["--total-rounds"]
