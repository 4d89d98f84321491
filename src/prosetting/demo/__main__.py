"""`python -m prosetting.demo prepare --seed N --out DIR [--workspace WS] [--control | --generator]`"""

from __future__ import annotations

import argparse
import functools
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from prosetting.demo.prepare import make_room, prepare
from prosetting.demo.recipe import Recipe
from prosetting.errors import ProSettingError


def main(arguments: Sequence[str] | None = None, recipe: Recipe | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m prosetting.demo", description=__doc__)
    command = parser.add_subparsers(required=True).add_parser(
        "prepare", help="make the demo's solver, question files and settings in a folder"
    )
    command.add_argument("--seed", type=int, required=True)
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    command.add_argument(
        "--workspace", type=Path, metavar="WS", help="workspace of the run (default: DIR/run, DIR/run-control)"
    )
    kind = command.add_mutually_exclusive_group()
    kind.add_argument("--control", action="store_true", help="settings of the control: shuffled labels")
    kind.add_argument("--generator", action="store_true", help="make a Generator too, and settings with it")
    asked = parser.parse_args(arguments)
    name = "run-control" if asked.control else "run-generator" if asked.generator else "run"
    workspace = asked.workspace or asked.out / name
    say = functools.partial(print, flush=True)
    try:
        make_room(workspace, asked.seed, say)
        env_file = prepare(
            asked.out,
            asked.seed,
            workspace=workspace,
            control=asked.control,
            generator=asked.generator,
            recipe=recipe,
            say=say,
        )
    except ProSettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    say(f"demo: next, prosetting run --env-file {shlex.quote(str(env_file))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
