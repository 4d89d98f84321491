"""The reference page of all commands (docs/commands.md): `python -m prosetting.cli.reference > docs/commands.md`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import typer
import typer.main

from prosetting.cli.main import app
from prosetting.cli.settings_flags import SettingsCommand

HEAD = """\
# Commands

Generated from the command line itself by `python -m prosetting.cli.reference`. Results go to stdout, messages to
stderr; `--json` gives a program the result. Colours obey `NO_COLOR`, nothing moves off a terminal. Your shell completes
commands and flags after `prosetting --install-completion`.

Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 stopped and resumable, 4 workspace in use, 5 teacher
unavailable, 6 paused for a person to look, 130 Ctrl+C.
"""
SETTINGS = "Every setting is a flag too (`TOTAL_ROUNDS` is `--total-rounds`): [settings.md](settings.md)."


def reference_markdown() -> str:
    """The page. Raises nothing; what a command says of itself is what stands there."""
    group: Any = typer.main.get_command(app)
    parts = [HEAD]
    for name, command in group.commands.items():
        parts += [f"## prosetting {name}\n", *_command(command)]
    return "\n".join(parts)


def _command(command: Any) -> Iterator[str]:
    text, _, example = inspect.cleandoc(command.help or "").partition("\b\nExample:\n")
    yield text.strip() + "\n"
    yield "```bash"
    yield from (line.strip() for line in example.strip().splitlines())
    yield "```\n"
    own = [param for param in command.params if param.name not in _setting_names()]
    if own:
        yield "| Argument | |"
        yield "|---|---|"
        yield from (f"| `{_signature(param)}` | {_meaning(param)} |" for param in own)
        yield ""
    if isinstance(command, SettingsCommand):
        yield SETTINGS + "\n"


def _setting_names() -> set[str]:
    from prosetting.config import Settings

    return set(Settings.model_fields)


def _signature(param: Any) -> str:
    if param.param_type_name == "argument":
        return str(param.metavar or param.name.upper()).replace("|", "\\|")
    flag = max(param.opts, key=len)
    return flag if param.is_flag else f"{flag} {param.metavar or 'VALUE'}"


def _meaning(param: Any) -> str:
    return " ".join(str(param.help or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    print(reference_markdown(), end="")
