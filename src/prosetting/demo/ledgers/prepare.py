"""Makes the experiment's folder: solver, question files, and settings for each arm. What is made is not made again."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

from prosetting.core.artifacts import write_json
from prosetting.demo.ledgers.questions import heldout_rows, seed_pool
from prosetting.demo.ledgers.recipe import EVERY_ARM, RECIPE_VERSION, RUN_SETTINGS, LedgerRecipe
from prosetting.demo.prepare import MARKER, Say, is_made, quoted, write_text

README = """\
# What this folder is

Made by `experiments/easy_to_hard.py` for seed {seed} (recipe version {version}); safe to delete.

- `solver/`: a small SmolLM3 model without position embeddings, an ordinary Hugging Face folder. It has seen no real
  text, only ledger stories of one, two and three operations with their solutions.
- `questions.json`: the first round's questions, of two and three operations.
- `heldout.jsonl`: the questions that measure, of one to six operations. Their chains of numbers and operations occur in
  no question of the warm start and of `questions.json`.
- `*.env`: settings of the arms.
"""


def prepare(folder: Path, seed: int, recipe: LedgerRecipe | None = None, say: Say = print) -> dict[str, Path]:
    """Make `folder` ready and give the settings file of each arm; each arm's workspace lies in the folder."""
    folder, recipe = folder.resolve(), recipe or LedgerRecipe()
    identity = {"seed": seed, "recipe_version": RECIPE_VERSION, "recipe": json.loads(json.dumps(asdict(recipe)))}
    if is_made(folder / MARKER, identity):
        say(f"seed {seed}: {folder} is ready, nothing to make")
    else:
        say(f"seed {seed}: making the solver and its questions in {folder}")
        _make(folder, seed, recipe, say)
        write_json(folder / MARKER, identity)
    files = {arm: folder / f"{arm.replace(' ', '-')}.env" for arm in EVERY_ARM}
    for arm, file in files.items():
        write_text(file, _env_text(folder, seed, arm))
    return files


def workspace_of(folder: Path, arm: str) -> Path:
    return folder.resolve() / f"run-{arm.replace(' ', '-')}"


def _make(folder: Path, seed: int, recipe: LedgerRecipe, say: Say) -> None:
    # Only a making needs these; a second call answers without loading torch.
    import torch

    from prosetting.demo.ledgers.solver import build_model, make_tokenizer, warm_start
    from prosetting.demo.solver import save

    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).unlink(missing_ok=True)
    shutil.rmtree(folder / "solver", ignore_errors=True)
    write_text(folder / "questions.json", json.dumps(seed_pool(seed, recipe), indent=1) + "\n")
    write_text(folder / "heldout.jsonl", "".join(json.dumps(row) + "\n" for row in heldout_rows(seed, recipe)))
    write_text(folder / "README.md", README.format(seed=seed, version=RECIPE_VERSION))
    torch.manual_seed(seed)
    tokenizer = make_tokenizer(recipe)
    model = build_model(tokenizer, recipe)
    warm_start(model, tokenizer, recipe, seed, say)
    save(model, tokenizer, folder / "solver")


def _env_text(folder: Path, seed: int, arm: str) -> str:
    values = {
        "SOLVER_MODEL_PATH": quoted(folder / "solver"),
        "QUESTIONS_FILE": quoted(folder / "questions.json"),
        "VALIDATION_DATA_FILE": quoted(folder / "heldout.jsonl"),
        "WORKSPACE_DIR": quoted(workspace_of(folder, arm)),
        "SEED": str(seed),
        **RUN_SETTINGS,
        **EVERY_ARM[arm],
    }
    return "".join(f"{key}={value}\n" for key, value in values.items())
