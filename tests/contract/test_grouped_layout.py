"""What is computed of a batch of questions: which rows, which tokens, in which parts."""

from __future__ import annotations

from typing import Any

import pytest

from prosetting.trainers.worker_dpo_data import tokenize
from prosetting.trainers.worker_dpo_layout import QuestionCollator, Row, part_of, split, tokens_in

PROMPT = (1, 2, 3, 4, 5)
ROWS = [Row((*PROMPT, 10, 11, 12), 5), Row((*PROMPT, 20), 5), Row((*PROMPT, 30, 31), 5)]


class Letters:
    """A tokenizer of letters that merges "ab" wherever it meets it."""

    chat_template = None
    eos_token = "."

    def __call__(self, texts: list[str]) -> dict[str, list[list[int]]]:
        return {"input_ids": [[ord(letter) for letter in text.replace("ab", "ß")] for text in texts]}


def test_a_shared_prompt_is_computed_once_less_its_last_token() -> None:
    assert tokens_in(ROWS, share=True) == 4 + 3 + 1 + 2
    stream = part_of(ROWS, share=True)["inputs"]
    assert stream["input_ids"].tolist() == [[1, 2, 3, 4, 5, 10, 11, 5, 5, 30]]
    assert stream["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5, 6, 4, 4, 5]]


def test_attention_takes_short_rows_whole_and_gives_each_token_back_once() -> None:
    layout = part_of(ROWS, share=True)["inputs"]["whole_rows"]
    assert layout["take"].view(layout["rows"], -1).tolist() == [
        [0, 1, 2, 3, 4, 5, 6],
        [0, 1, 2, 3, 7, 7, 7],
        [0, 1, 2, 3, 8, 9, 9],
    ]
    assert layout["take"][layout["give"]].tolist() == list(range(10))


def test_attention_goes_question_by_question_where_whole_rows_would_repeat_much() -> None:
    long = [Row((*range(2000), 10 + n), 2000) for n in range(4)]
    assert "prompt_groups" in part_of(long, share=True)["inputs"]
    assert "whole_rows" in part_of(long[:1], share=True)["inputs"], "nothing is repeated in one row"


def test_without_sharing_each_row_is_computed_whole() -> None:
    assert tokens_in(ROWS, share=False) == 3 * 7
    assert part_of(ROWS, share=False)["scored"].tolist() == [4, 5, 6, 11, 18, 19]


@pytest.mark.parametrize("share", [True, False])
def test_parts_hold_all_rows_in_order_within_the_limit(share: bool) -> None:
    rows = ROWS * 5
    for most in (1, 8, 15, 1000):
        parts = split(rows, most, share)
        assert [row for part in parts for row in part] == rows
        assert all(len(part) == 1 or tokens_in(part, share) <= most for part in parts)
    assert len(split(rows, 1, share)) == len(rows)
    assert len(split(rows, None, share)) == 1


def question(prompt: str, completions: list[str], chosen: list[int], rejected: list[int]) -> dict[str, Any]:
    return {"prompt": prompt, "completions": completions, "chosen": chosen, "rejected": rejected}


def test_a_completion_in_many_pairs_is_one_row() -> None:
    [found] = tokenize([question("pq", ["x", "y", "z"], [0, 0, 1], [2, 2, 2])], Letters(), 99)
    assert found is not None
    assert [len(row) for row in found["rows"]] == [4, 4, 4]
    assert found["starts"] == [2, 2, 2]
    assert (found["chosen"], found["rejected"]) == ([0, 0, 2], [1, 1, 1])


def test_a_completion_that_starts_elsewhere_in_another_pair_is_a_row_for_each_start() -> None:
    """The prompt ends in "a": with the completion "b…" its last token is another, and that pair starts before it."""
    [found] = tokenize([question("pa", ["x", "bx", "y"], [0, 0], [1, 2])], Letters(), 99)
    assert found is not None
    assert [(len(row), start) for row, start in zip(found["rows"], found["starts"], strict=True)] == [
        (4, 1),
        (4, 1),
        (4, 2),
        (4, 2),
    ]
    assert (found["chosen"], found["rejected"]) == ([0, 2], [1, 3])


def test_long_rows_are_cut_and_a_prompt_too_long_is_no_question() -> None:
    [found] = tokenize([question("pq", ["xxxxxx", "y"], [0], [1])], Letters(), 5)
    assert found is not None
    assert [len(row) for row in found["rows"]] == [5, 4]
    assert tokenize([question("pq", ["x", "y"], [0], [1])], Letters(), 2) == [None]


def test_pairs_stand_in_lines_chosen_first_with_their_reference() -> None:
    data = {"rows": [list(row.ids) for row in ROWS], "starts": [5] * 3, "ref_logps": [-1.0, -2.0, -3.0]}
    batch = QuestionCollator(None, True)([data | {"chosen": [0, 2], "rejected": [1, 1]}])
    assert batch["lines"].tolist() == [0, 2, 1, 1]
    assert batch["completion_mask"].sum(dim=1).tolist() == [3, 2, 1, 1]
    assert batch["attention_mask"].tolist() == [8, 7, 6, 6]
    assert (batch["ref_chosen_logps"].tolist(), batch["ref_rejected_logps"].tolist()) == ([-1.0, -3.0], [-2.0, -2.0])
