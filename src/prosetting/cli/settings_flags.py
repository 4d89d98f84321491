"""Every setting as a flag of the commands that read settings, made from the settings model when it is needed.

`prosetting --help` reads no model of settings: the options appear when a command is parsed or its help is shown.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from prosetting.settings_sources import LoadedSettings

_FLAGS = "prosetting.flags"

EnvFile = Annotated[
    Path | None, typer.Option("--env-file", help="Settings file. Default: .env of the current folder, if there is one")
]


class SettingsCommand(TyperCommand):
    """A command that takes every setting as a flag; its help shows those whose names begin with one of `shown`."""

    shown: ClassVar[tuple[str, ...]] = ("",)
    _options: list[Any] | None = None

    def get_params(self, ctx: Any) -> list[Any]:
        if self._options is None:
            self._options = _setting_options(self.shown)
            self.params = [*self.params, *self._options]
        return super().get_params(ctx)

    def invoke(self, ctx: Any) -> Any:
        from prosetting.config import env_name

        names = [option.name for option in self._options or []]
        given = {name: ctx.params.pop(name) for name in names}
        ctx.meta[_FLAGS] = {env_name(name): value for name, value in given.items() if value is not None}
        return super().invoke(ctx)


class InitCommand(SettingsCommand):
    """Writes settings."""

    shown = ("solver_model_path", "questions_file", "validation_", "workspace_dir", "teacher_base", "teacher_model")


class WorkspaceCommand(SettingsCommand):
    """Reads a workspace."""

    shown = ("workspace_dir",)


class GradeCommand(SettingsCommand):
    """Grades with rules and a teacher."""

    shown = ("teacher_",)


class EvalCommand(SettingsCommand):
    """Samples and grades."""

    shown = ("solver_", "physical_solver_gpu", "teacher_", "trust_", "seed")


class GeneratorCommand(SettingsCommand):
    """Trains the Generator."""

    shown = ("generator_", "workspace_dir", "physical_grpo_gpu", "trl_num", "trl_mixed", "trl_max_length", "seed")


def flags_of(ctx: typer.Context) -> dict[str, str]:
    """The settings that this command line gives, by environment name."""
    return dict(ctx.meta[_FLAGS])


def load(
    ctx: typer.Context, env_file: Path | None, *, need_model: bool = True, more: Mapping[str, str] | None = None
) -> LoadedSettings:
    """The settings of this command line; `more` are further flags, by environment name."""
    from prosetting.settings_sources import load_settings

    flags = {**flags_of(ctx), **(more or {})}
    return load_settings(flags=flags, environ=os.environ, env_file=env_file, need_model=need_model)


def _setting_options(shown: tuple[str, ...]) -> list[Any]:
    """typer's options, made by typer itself from a function with one parameter a setting."""
    from prosetting.config import Settings, example_value, flag_name, setting_unit

    def holder(**settings: str | None) -> None: ...

    parameters = []
    for name, field in Settings.model_fields.items():
        unit = f" [{unit}]" if (unit := setting_unit(name)) else ""
        default = example_value(name) or "empty"
        option = typer.Option(
            flag_name(name),
            metavar="VALUE",
            help=f"{field.description}{unit}; default: {default}",
            hidden=not name.startswith(shown),
            show_default=False,
        )
        annotation = Annotated[str | None, option]
        holder.__annotations__[name] = annotation
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))
    del holder.__annotations__["settings"]
    holder.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    app = typer.Typer(add_completion=False)
    app.command()(holder)
    return list(typer.main.get_command(app).params)
