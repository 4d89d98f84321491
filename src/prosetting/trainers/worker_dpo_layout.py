"""Questions laid out for one pass of the model: each distinct sequence once, its prompt once. Pure; no model here.

A question's rows are its distinct sequences (prompt + completion) as (token ids, where the completion starts).
Rows that begin alike share their context: with a completion from `start`, the ids before `start - 1` are read once;
the last id of the context opens each row's own segment, for it predicts the completion's first token. The last id
of a sequence predicts nothing and is left out.
So a question costs (prompt - 1) + the sum of its completions, in tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

SPARE_PAIRS = 20_000
"""Pairs of tokens a question that attention may score beyond what it has to, where that saves it the question's own
calls: with a short text these take far longer than what they compute."""


@dataclass(frozen=True, slots=True)
class Row:
    """One distinct sequence. `start` ≥ 1: the first id has nothing before it that could predict it."""

    ids: tuple[int, ...]
    start: int

    @property
    def shared(self) -> tuple[int, ...]:
        return self.ids[: self.start - 1]

    @property
    def own(self) -> tuple[int, ...]:
        return self.ids[self.start - 1 : -1]

    @property
    def scored(self) -> tuple[int, ...]:
        return self.ids[self.start :]


def groups_of(rows: Iterable[Row]) -> Iterator[tuple[tuple[int, ...], list[Row]]]:
    """Neighbouring rows that share what comes before their own segments."""
    for shared, group in groupby(rows, key=lambda row: row.shared):
        yield shared, list(group)


def tokens_in(rows: Sequence[Row], share: bool) -> int:
    """What one forward pass over `rows` computes: with shared prompts, or as padded sequences."""
    if share:
        return sum(len(shared) + sum(len(row.own) for row in group) for shared, group in groups_of(rows))
    return len(rows) * max(len(row.ids) - 1 for row in rows)


def split(rows: Sequence[Row], most_tokens: int | None, share: bool) -> list[list[Row]]:
    """`rows` in their order, in as few runs as need at most `most_tokens` each; one row is never split."""
    parts: list[list[Row]] = [[]]
    for row in rows:
        if most_tokens and parts[-1] and tokens_in([*parts[-1], row], share) > most_tokens:
            parts.append([])
        parts[-1].append(row)
    return parts


def part_of(rows: Sequence[Row], share: bool, spare_pairs: int = SPARE_PAIRS) -> dict[str, Any]:
    """Inputs of the backbone, and `scored`: which of its output positions predict the completions, row by row."""
    return _stream(rows, spare_pairs) if share else _padded(rows)


def _stream(rows: Sequence[Row], spare_pairs: int) -> dict[str, Any]:
    """One sequence (1, tokens) of shared contexts, each followed by its rows' own segments.

    And how attention is to take it apart: as `whole_rows`, or as `prompt_groups` where those score far fewer pairs.
    """
    ids: list[int] = []
    positions: list[int] = []
    scored: list[int] = []
    groups = []
    for shared, group in groups_of(rows):
        ids += shared
        positions += range(len(shared))
        lengths = [len(row.own) for row in group]
        scored += range(len(ids), len(ids) + sum(lengths))
        for row in group:
            ids += row.own
            positions += range(len(shared), len(shared) + len(row.own))
        groups.append((len(shared), lengths))
    by_group = sum(shared**2 + len(own) * max(own) * (shared + max(own)) for shared, own in groups)
    by_row = len(rows) * max(len(row.ids) - 1 for row in rows) ** 2
    whole = by_row <= by_group + spare_pairs * len(groups)
    attention = {"whole_rows": _whole_rows(groups)} if whole else {"prompt_groups": [_group(*one) for one in groups]}
    return {
        "inputs": {
            "input_ids": torch.tensor([ids]),
            "position_ids": torch.tensor([positions]),
            "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool),  # four dimensions: taken as it is, never read
            **attention,
        },
        "scored": torch.tensor(scored),
    }


def _whole_rows(groups: list[tuple[int, list[int]]]) -> dict[str, Any]:
    """Of groups (shared, own lengths): `take` lays the stream out as (rows, longest), each row its context and its own
    segment, and what is padded repeats the last token where no query looks; `give` finds each token's place in that."""
    longest = max(shared + own for shared, lengths in groups for own in lengths)
    take: list[int] = []
    give: list[int] = []
    token = 0
    for shared, lengths in groups:
        context = range(token, token + shared)
        give += range(len(take), len(take) + shared)
        token += shared
        for own in lengths:
            give += range(len(take) + shared, len(take) + shared + own)
            take += [*context, *range(token, token + own)]
            take += [token + own - 1] * (longest - shared - own)
            token += own
    return {"rows": sum(len(lengths) for _, lengths in groups), "take": torch.tensor(take), "give": torch.tensor(give)}


def _group(shared: int, lengths: list[int]) -> dict[str, Any]:
    """`pad` lays segments of unequal lengths out as (rows, longest), `unpad` undoes it; None where nothing is to do."""
    group: dict[str, Any] = {"shared": shared, "tokens": sum(lengths), "rows": len(lengths), "longest": max(lengths)}
    group |= {"pad": None, "unpad": None}
    if len(set(lengths)) > 1:
        starts = [sum(lengths[:i]) for i in range(len(lengths))]
        real = [[at < length for at in range(group["longest"])] for length in lengths]
        ends = zip(starts, lengths, strict=True)
        pad = [[start + min(at, length - 1) for at in range(group["longest"])] for start, length in ends]
        group["pad"] = torch.tensor(list(chain.from_iterable(pad)))
        group["unpad"] = torch.tensor(real).flatten().nonzero().flatten()
    return group


def _padded(rows: Sequence[Row]) -> dict[str, Any]:
    """(rows, longest): whole sequences, for models whose attention cannot be told what is shared."""
    ids = pad_sequence([torch.tensor(row.ids[:-1]) for row in rows], batch_first=True)
    mask = pad_sequence([torch.ones(len(row.ids) - 1, dtype=torch.long) for row in rows], batch_first=True)
    width = ids.shape[1]
    scored = [range(n * width + row.start - 1, n * width + len(row.ids) - 1) for n, row in enumerate(rows)]
    return {
        "inputs": {"input_ids": ids, "attention_mask": mask},
        "scored": torch.tensor(list(chain.from_iterable(scored))),
    }


@dataclass
class QuestionCollator:
    """Questions to one batch: each distinct row once in `parts`, and the pairs as lines of TRL's layout.

    TRL sees 2·pairs lines, the chosen ones first, of one context token and the completion; `lines` tells which row
    stands in each. `rows_a_question` stands first: transformers takes a batch's size from its first tensor.
    """

    most_tokens: int | None
    share: bool

    def __call__(self, questions: Sequence[dict[str, Any]]) -> dict[str, Any]:
        rows: list[Row] = []
        chosen: list[int] = []
        rejected: list[int] = []
        reference: list[float] = []
        without_context: list[bool] = []
        for question in questions:
            chosen += [len(rows) + index for index in question["chosen"]]
            rejected += [len(rows) + index for index in question["rejected"]]
            reference += question.get("ref_logps", ())
            without_context += [start == 0 for start in question["starts"]]
            pairs = zip(question["rows"], question["starts"], strict=True)
            rows += [Row(tuple(ids), max(start, 1)) for ids, start in pairs]
        lines = torch.tensor(chosen + rejected)
        completion = pad_sequence([torch.ones(1 + len(row.scored), dtype=torch.long) for row in rows], batch_first=True)
        completion[:, 0] = torch.tensor(without_context)
        batch = {
            "rows_a_question": torch.tensor([len(question["rows"]) for question in questions]),
            "lines": lines,
            "parts": [part_of(part, self.share) for part in split(rows, self.most_tokens, self.share)],
            "targets": torch.tensor([list(chain.from_iterable(row.scored for row in rows))]),
            "lengths": [len(row.scored) for row in rows],
            "completion_mask": completion[lines],
            "input_ids": completion[lines],  # only its shape is read: the model reads `parts`
            "attention_mask": torch.tensor([len(row.ids) for row in rows])[lines],  # only its sum is read
        }
        if reference:
            batch["ref_chosen_logps"] = torch.tensor(reference)[torch.tensor(chosen)]
            batch["ref_rejected_logps"] = torch.tensor(reference)[torch.tensor(rejected)]
        return batch
