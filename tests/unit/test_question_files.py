"""The three kinds of questions never mix: what is trained on, what the round gate looks at, what is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from prosetting.config import Settings
from prosetting.errors import DataError
from prosetting.managers.question_files import load_question_files


def settings(folder: Path, *, pool: str, heldout: str, reported: tuple[str, ...]) -> Settings:
    """A file a kind, a question a letter."""
    files = {}
    for name, letters in {"pool": pool, "heldout": heldout, **{f"eval{n}": x for n, x in enumerate(reported)}}.items():
        files[name] = folder / f"{name}.jsonl"
        rows = [f'{{"question": "How many {letter} are there?", "answer": "1"}}\n' for letter in letters]
        files[name].write_text("".join(rows))
    return Settings(
        solver_model_path="m",
        questions_file=files["pool"],
        validation_data_file=files["heldout"],
        eval_files=tuple(str(files[f"eval{n}"]) for n in range(len(reported))),
    )


def test_each_kind_is_read_from_its_own_files(tmp_path: Path) -> None:
    files = load_question_files(settings(tmp_path, pool="ab", heldout="c", reported=("de", "ef")))
    assert [len(files.pool), len(files.heldout), [len(file) for file in files.reported.values()]] == [2, 1, [2, 2]]
    assert sorted(question.text[9] for question in files.all_reported) == ["d", "e", "f"]
    assert sorted(question.text[9] for question in files.kept_apart) == ["c", "d", "e", "f"]


@pytest.mark.parametrize(
    ("pool", "heldout", "reported", "named"),
    [
        ("ab", "bc", (), ["pool.jsonl", "heldout.jsonl"]),
        ("ab", "c", ("d", "eb"), ["pool.jsonl", "eval1.jsonl"]),
        ("ab", "cd", ("d",), ["heldout.jsonl", "eval0.jsonl"]),
    ],
)
def test_a_question_of_two_kinds_is_refused_naming_both_files_and_the_question(
    tmp_path: Path, pool: str, heldout: str, reported: tuple[str, ...], named: list[str]
) -> None:
    with pytest.raises(DataError, match="would not be held out") as caught:
        load_question_files(settings(tmp_path, pool=pool, heldout=heldout, reported=reported))
    assert all(name in caught.value.what for name in named)
    assert "How many" in caught.value.what
