"""The demo's folder, with real transformers: it loads like any model folder, and is made once."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from dotenv import dotenv_values
from transformers import AutoModelForCausalLM, AutoTokenizer

from prosetting.core.artifacts import write_json
from prosetting.datasets.generator_text import read_draft
from prosetting.demo.__main__ import main
from prosetting.demo.generator import generator_examples
from prosetting.demo.prepare import make_room, prepare
from prosetting.demo.questions import HELDOUT_NAMES, is_heldout
from prosetting.demo.recipe import GeneratorRecipe, Recipe
from prosetting.settings_sources import load_settings
from prosetting.teachers.arithmetic import parse

TINY = Recipe(examples=64, steps=3, batch=8, seed_questions=8, heldout_questions=8)
CHAT = [{"role": "user", "content": "Max starts with 5 cards."}, {"role": "assistant", "content": r"5 \boxed{5}"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("de mo's")
    prepare(folder, 7, workspace=folder / "run", recipe=TINY)
    return folder


def test_the_solver_loads_and_samples(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder / "solver")
    model = AutoModelForCausalLM.from_pretrained(folder / "solver")
    prompt = tokenizer.apply_chat_template(CHAT[:1], add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**prompt, max_new_tokens=4, min_new_tokens=4)
    assert output.shape[1] == prompt["input_ids"].shape[1] + 4
    assert (folder / "solver" / "model.safetensors").is_file()
    assert type(model).__name__ == "Qwen3ForCausalLM"


def test_the_generation_prompt_is_a_token_prefix_of_the_chat(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder / "solver")
    prompt = tokenizer.apply_chat_template(CHAT[:1], add_generation_prompt=True)["input_ids"]
    whole = tokenizer.apply_chat_template(CHAT)["input_ids"]
    assert whole[: len(prompt)] == prompt
    assert whole[-1] == tokenizer.eos_token_id


def test_any_text_survives_the_tokenizer(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder / "solver")
    text = "12+3=15 \\boxed{15}\n\u00e9 \u4f60 $x^2$"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_settings_are_valid_and_point_into_the_folder(folder: Path) -> None:
    loaded = load_settings(flags={}, environ={}, env_file=folder / ".env").settings
    assert loaded.solver_model_path == str(folder / "solver")
    assert loaded.questions_file == folder / "questions.json"
    assert loaded.validation_data_file == folder / "heldout.jsonl"
    assert loaded.seed == 7
    assert not loaded.shuffle_labels


def test_a_second_call_makes_nothing_and_the_control_shares_the_folder(folder: Path) -> None:
    before = (folder / "solver" / "model.safetensors").stat().st_mtime_ns
    said: list[str] = []
    env_file = prepare(folder, 7, workspace=folder / "other", control=True, recipe=TINY, say=said.append)
    assert (folder / "solver" / "model.safetensors").stat().st_mtime_ns == before
    assert said == [f"demo: seed 7, {folder} is ready: nothing to make"]
    main, control = dotenv_values(folder / ".env"), dotenv_values(env_file)
    differing = {key for key in main if main[key] != control[key]}
    assert differing == {"SHUFFLE_LABELS", "WORKSPACE_DIR"}


def test_the_same_seed_gives_the_same_files_and_another_seed_others(folder: Path, tmp_path: Path) -> None:
    prepare(tmp_path, 7, workspace=tmp_path / "run", recipe=TINY)
    for name in ("questions.json", "heldout.jsonl", "solver/tokenizer.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    prepare(tmp_path, 8, workspace=tmp_path / "run", recipe=TINY)
    assert (tmp_path / "heldout.jsonl").read_bytes() != (folder / "heldout.jsonl").read_bytes()
    assert json.loads((tmp_path / "prepared.json").read_text(encoding="utf-8"))["seed"] == 8


def test_an_interrupted_making_is_made_again(folder: Path, tmp_path: Path) -> None:
    def interrupt(message: str) -> None:
        if "warm start" in message:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path, 7, workspace=tmp_path / "run", recipe=TINY, say=interrupt)
    assert not (tmp_path / "prepared.json").exists()
    prepare(tmp_path, 7, workspace=tmp_path / "run", recipe=TINY)
    assert (tmp_path / "solver" / "model.safetensors").is_file()


def test_the_folder_says_how_its_solver_was_made(folder: Path) -> None:
    assert "pupil with misconceptions" in (folder / "README.md").read_text(encoding="utf-8").replace("\n  ", " ")


def test_the_command_says_the_seed_and_what_to_type_next(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["prepare", "--seed", "7", "--out", str(folder)], recipe=TINY)
    said = capsys.readouterr().out
    assert "seed 7" in said
    assert f"prosetting run --env-file {shlex.quote(str(folder / '.env'))}" in said
    assert dotenv_values(folder / ".env")["WORKSPACE_DIR"] == str(folder / "run")


def test_a_workspace_of_another_seed_is_moved_aside_and_one_of_the_same_is_kept(tmp_path):
    workspace = tmp_path / "demo"
    write_json(workspace / "training_config.json", {"settings": {"seed": 1}})
    make_room(workspace, 1)
    assert workspace.exists()
    make_room(workspace, 2)
    assert not workspace.exists()
    assert (tmp_path / "demo.seed-1" / "training_config.json").exists()


def test_a_generator_is_made_beside_the_solver_and_leaves_it_as_it_is(folder: Path) -> None:
    before = (folder / "solver" / "model.safetensors").stat().st_mtime_ns
    recipe = GeneratorRecipe(examples=64, steps=3, batch=8)
    said: list[str] = []
    env_file = prepare(
        folder, 7, workspace=folder / "run", generator=True, recipe=TINY, generator_recipe=recipe, say=said.append
    )
    loaded = load_settings(flags={}, environ={}, env_file=env_file).settings
    assert (loaded.generator_model_path, loaded.generator_share) == (str(folder / "generator"), 0.5)
    assert AutoModelForCausalLM.from_pretrained(folder / "generator").num_parameters() > 0
    assert (folder / "solver" / "model.safetensors").stat().st_mtime_ns == before
    made = (folder / "generator" / "model.safetensors").stat().st_mtime_ns
    prepare(folder, 7, workspace=folder / "run", generator=True, recipe=TINY, generator_recipe=recipe, say=said.append)
    assert (folder / "generator" / "model.safetensors").stat().st_mtime_ns == made


def test_the_generators_examples_are_stories_of_the_side_that_teaches() -> None:
    examples = generator_examples(7, GeneratorRecipe(examples=200))
    drafts = [read_draft(completion) for _, completion in examples]
    stories = [parse(draft.text) for draft in drafts if draft]
    assert len(stories) == 200
    assert all(story and not is_heldout(story) and story.name not in HELDOUT_NAMES for story in stories)
    assert all(draft and draft.solution and draft.reference.isdigit() for draft in drafts)
