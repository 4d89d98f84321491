"""Makes the demo's folder: solver, question files, settings. What is made already is not made again.

The solver is warm-started on the solutions of a pupil with misconceptions (`pupil.py`), so that it is wrong
by habit and there is something for preference training to unlearn. The README in the folder says so too.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prosetting.core.artifacts import read_json, replace_atomically, write_json
from prosetting.core.workspace import Workspace, WorkspaceLock
from prosetting.demo.generator import generator_examples
from prosetting.demo.questions import heldout_rows, seed_pool, warm_start_examples
from prosetting.demo.recipe import (
    GENERATOR_SETTINGS,
    RECIPE_VERSION,
    RUN_SETTINGS,
    GeneratorRecipe,
    Recipe,
)
from prosetting.errors import DataError

TOKENIZER_TEXTS = 2_000
MARKER = "prepared.json"
GENERATOR_MARKER = "prepared_generator.json"

README = """\
# What this folder is

Made by `python -m prosetting.demo prepare --seed {seed}` (recipe version {version}); safe to delete.

- `solver/`: a small Qwen3 model, an ordinary Hugging Face folder. **It has seen no real text. It was warm-started
  on {examples} worked solutions of a simulated pupil with misconceptions**, who reads taking away as adding
  ({takes_away:.0%} of the time), forgets a carry ({carry:.0%}) and slips by one ({slip:.0%}). So it starts out
  wrong by habit, and the loop unlearns the habits. This shows that the loop works; it says nothing about how
  much a large model would gain.
- `questions.json`: {pool} questions of the first round; every fourth has no answer, so that Teacher1 decides.
- `heldout.jsonl`: {heldout} questions that measure. Their chains of numbers and operations occur in no question of
  the warm start and of `questions.json`.
- `generator/`, with `--generator` only: a Generator of the same size. **It was warm-started on {generator_examples}
  stories of the family that were drawn at random, with the solutions of a milder pupil** (taking away as adding
  {generator_takes_away:.0%}, a carry forgotten {generator_carry:.0%}). So it can write such stories, many with a wrong
  answer, and knows nothing of which are useful.
- `.env`, `control.env`, `generator.env`: settings of the run and of its control with shuffled labels.
"""

Say = Callable[[str], None]


def prepare(
    folder: Path,
    seed: int,
    *,
    workspace: Path,
    control: bool = False,
    generator: bool = False,
    recipe: Recipe | None = None,
    generator_recipe: GeneratorRecipe | None = None,
    say: Say = print,
) -> Path:
    """Make `folder` ready for `prosetting run` and give the settings file to run with.

    The solver and the questions depend on `seed` and `recipe` alone; a folder made with others is made anew. So does
    the Generator, which is made only where `generator` asks for it, on its own.
    """
    folder, recipe = folder.resolve(), recipe or Recipe()
    identity = {"seed": seed, "recipe_version": RECIPE_VERSION, "recipe": asdict(recipe)}
    if is_made(folder / MARKER, identity):
        say(f"demo: seed {seed}, {folder} is ready: nothing to make")
    else:
        say(f"demo: seed {seed}, making the solver and its questions in {folder}")
        _make(folder, seed, recipe, say)
        write_json(folder / MARKER, identity)
    if generator:
        _prepare_generator(folder, seed, generator_recipe or GeneratorRecipe(), say)
    env_file = folder / ("control.env" if control else "generator.env" if generator else ".env")
    write_text(env_file, _env_text(folder, seed, workspace.resolve(), shuffle_labels=control, generator=generator))
    return env_file


def _prepare_generator(folder: Path, seed: int, recipe: GeneratorRecipe, say: Say) -> None:
    identity = {"seed": seed, "recipe_version": RECIPE_VERSION, "recipe": asdict(recipe)}
    if is_made(folder / GENERATOR_MARKER, identity):
        return
    say(f"demo: seed {seed}, making the Generator in {folder}")
    (folder / GENERATOR_MARKER).unlink(missing_ok=True)
    _make_model(folder / "generator", generator_examples(seed, recipe), seed, recipe, say)
    write_json(folder / GENERATOR_MARKER, identity)


def make_room(workspace: Path, seed: int, say: Say = print) -> None:
    """Move a workspace that another seed was run in aside, to `<workspace>.seed-<other>`: nothing is deleted."""
    settled = Workspace(workspace, workspace / "logs")
    if not settled.config.exists():
        return
    other = read_json(settled.config)["settings"]["seed"]
    if other == seed:
        return
    with WorkspaceLock(settled):
        target = workspace.with_name(f"{workspace.name}.seed-{other}")
        number = 1
        while target.exists():
            number += 1
            target = workspace.with_name(f"{workspace.name}.seed-{other}.{number}")
        workspace.rename(target)
    say(f"demo: {workspace} held a run of seed {other}; it is now {target}")


def is_made(marker: Path, identity: dict[str, Any]) -> bool:
    try:
        found = read_json(marker)
    except DataError:
        return False
    return all(found.get(key) == value for key, value in identity.items())


def _make(folder: Path, seed: int, recipe: Recipe, say: Say) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).unlink(missing_ok=True)
    write_text(folder / "questions.json", json.dumps(seed_pool(seed, recipe), indent=1) + "\n")
    held = heldout_rows(seed, recipe)
    write_text(folder / "heldout.jsonl", "".join(json.dumps(row) + "\n" for row in held))
    write_text(folder / "README.md", _readme(seed, recipe))
    _make_model(folder / "solver", warm_start_examples(seed, recipe), seed, recipe, say)


def _make_model(folder: Path, examples: list[tuple[str, str]], seed: int, recipe: Recipe, say: Say) -> None:
    """A model warm-started on examples of prompt and completion."""
    # Only a making needs these; a second call answers without loading torch.
    import torch

    from prosetting.demo.solver import build_model, build_tokenizer, save, warm_start

    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(_texts(examples[:TOKENIZER_TEXTS]), recipe.vocabulary)
    model = build_model(tokenizer, recipe)
    warm_start(model, tokenizer, examples, recipe, seed, say)
    save(model, tokenizer, folder)


def _texts(examples: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{question}\n{solution}" for question, solution in examples]


def _readme(seed: int, recipe: Recipe) -> str:
    return README.format(
        seed=seed,
        version=RECIPE_VERSION,
        examples=recipe.examples,
        takes_away=recipe.pupil.takes_away_is_plus,
        carry=recipe.pupil.carry_forgotten,
        slip=recipe.pupil.slip,
        pool=recipe.seed_questions,
        heldout=recipe.heldout_questions,
        generator_examples=GeneratorRecipe().examples,
        generator_takes_away=GeneratorRecipe().pupil.takes_away_is_plus,
        generator_carry=GeneratorRecipe().pupil.carry_forgotten,
    )


def _env_text(folder: Path, seed: int, workspace: Path, *, shuffle_labels: bool, generator: bool) -> str:
    values = {
        "SOLVER_MODEL_PATH": quoted(folder / "solver"),
        "QUESTIONS_FILE": quoted(folder / "questions.json"),
        "VALIDATION_DATA_FILE": quoted(folder / "heldout.jsonl"),
        "WORKSPACE_DIR": quoted(workspace),
        "SEED": str(seed),
        **RUN_SETTINGS,
        "SHUFFLE_LABELS": str(shuffle_labels).lower(),
        **({"GENERATOR_MODEL_PATH": quoted(folder / "generator"), **GENERATOR_SETTINGS} if generator else {}),
    }
    return "".join(f"{key}={value}\n" for key, value in values.items())


def quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def write_text(path: Path, text: str) -> None:
    with replace_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
