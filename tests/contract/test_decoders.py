"""Drawing attempts with real models of random weights: in slots that are kept full, and in chunks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from prosetting.collectors import slot_decoder
from prosetting.collectors.chunk_decoder import ChunkDecoder
from prosetting.collectors.slot_decoder import ROWS, SlotDecoder, fits
from prosetting.collectors.token_draw import GREEDY, Row, Warp, draw

END, VOCABULARY = 3, 40
PLAIN = Warp(1.0, 1.0)
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "eos_token_id": END,
    "pad_token_id": 0,
    "bos_token_id": None,
    "initializer_range": 0.4,
    "max_position_embeddings": 128,
}
GROUPED = SIZES | {"num_key_value_heads": 1, "intermediate_size": 48, "head_dim": 16}


def build(kind: str, **more: Any) -> PreTrainedModel:
    torch.manual_seed(1)
    models: dict[str, tuple[type[Any], type[Any], dict[str, Any]]] = {
        "qwen3": (Qwen3Config, Qwen3ForCausalLM, GROUPED),
        "llama": (LlamaConfig, LlamaForCausalLM, GROUPED),
        "smollm3": (SmolLM3Config, SmolLM3ForCausalLM, GROUPED | {"no_rope_layers": [1, 0]}),
        "gpt2": (GPT2Config, GPT2LMHeadModel, SIZES),
        "mistral": (MistralConfig, MistralForCausalLM, GROUPED | {"sliding_window": 8}),
        "mamba": (MambaConfig, MambaForCausalLM, SIZES),
    }
    config, model, sizes = models[kind]
    return model(config(**sizes | more)).eval()


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return build("qwen3")


def rows_of(prompts: int, attempts: int, room: int = 30) -> list[Row]:
    """Prompts of 3 to 40 tokens."""
    rng = np.random.default_rng(0)
    ids = [tuple(rng.integers(4, VOCABULARY, rng.integers(3, 40)).tolist()) for _ in range(prompts)]
    return [Row(n, ids[n // attempts], 1000 + n, room) for n in range(prompts * attempts)]


def drawn(decoder: SlotDecoder | ChunkDecoder, rows: list[Row], warp: Warp = PLAIN) -> dict[int, list[int]]:
    for row in rows:
        decoder.add(row)
    found = {}
    while decoder.busy:
        found |= {row.key: token_ids for row, token_ids in decoder.step(warp)}
    return found


def test_a_rows_logits_are_equal_to_the_bit_whatever_its_neighbours_are(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[float, bytes] = {}

    def recorded(logits: torch.Tensor, uniform: torch.Tensor, warp: Warp) -> torch.Tensor:
        # A row's number is as good as its name.
        seen.update(zip(uniform.tolist(), (row.numpy().tobytes() for row in logits), strict=True))
        return draw(logits, uniform, warp)

    monkeypatch.setattr(slot_decoder, "draw", recorded)
    rows = rows_of(8, 4)
    of_all = drawn(SlotDecoder(model, [END], 16), rows)
    all_seen = dict(seen)
    assert len(all_seen) == sum(map(len, of_all.values()))
    for slots, some in ((1, rows[::5]), (3, rows[::-2]), (7, rows), (48, rows[::2]), (48, rows[-1:])):
        seen.clear()
        assert drawn(SlotDecoder(model, [END], slots), some) == {row.key: of_all[row.key] for row in some}
        assert len(seen) == sum(len(of_all[row.key]) for row in some)
        assert seen.items() <= all_seen.items()


@pytest.mark.parametrize("kind", ["qwen3", "llama", "smollm3", "gpt2", "mistral", "mamba"])
def test_greedy_rows_are_generates_own_for_every_kind_of_model(kind: str) -> None:
    model = build(kind)
    assert fits(model) == (kind not in ("mistral", "mamba"))
    decoder = SlotDecoder(model, [END], 5) if fits(model) else ChunkDecoder(model, [END], 5)
    rows = [Row(row.key, row.token_ids, None if row.key % 2 else row.seed, 24) for row in rows_of(6, 2)]
    found = drawn(decoder, rows)
    assert found.keys() == {row.key for row in rows}
    for row in rows[1::2]:
        config = GenerationConfig(max_new_tokens=24, eos_token_id=END, pad_token_id=0, use_cache=True)
        alone = model.generate(torch.tensor([row.token_ids]), generation_config=config)
        assert found[row.key] == alone[0, len(row.token_ids) :].tolist()


def test_both_decoders_draw_the_same_attempts_of_the_same_seeds(model: PreTrainedModel) -> None:
    rows = rows_of(8, 4)
    assert drawn(ChunkDecoder(model, [END], 8), rows) == drawn(SlotDecoder(model, [END], 8), rows)


@pytest.mark.parametrize("warp", [PLAIN, Warp(1.5, 0.9)])
def test_attempts_have_the_distribution_of_generate(model: PreTrainedModel, warp: Warp) -> None:
    """Pearson's chi-square over the first two tokens; both samples are of fixed seeds."""
    count, prompt = 6_000, tuple(range(4, 16))
    ours = drawn(SlotDecoder(model, [END], 500), [Row(n, prompt, n, 2) for n in range(count)], warp)
    torch.manual_seed(0)
    config = GenerationConfig(
        do_sample=True, max_new_tokens=2, top_k=0, temperature=warp.temperature, top_p=warp.top_p,
        num_return_sequences=count, eos_token_id=END, pad_token_id=0,
    )  # fmt: skip
    theirs = model.generate(torch.tensor([prompt]), generation_config=config)[:, len(prompt) :].tolist()
    pairs = (
        Counter(tuple(tokens) for tokens in ours.values()),
        Counter(tuple(tokens if tokens[0] != END else [END]) for tokens in theirs),
    )
    statistic, cells = chi_square(*pairs)
    assert cells > 20
    # Of a chi-square with k degrees of freedom: mean k, variance 2k. 4 deviations are a chance of about 1 in 10,000.
    assert statistic < cells + 4 * (2 * cells) ** 0.5
    worse = Counter({pair: count for pair, count in pairs[0].items() if pair != pairs[0].most_common(4)[3][0]})
    assert chi_square(worse, pairs[1])[0] > cells + 4 * (2 * cells) ** 0.5


def chi_square(a: Counter[tuple[int, ...]], b: Counter[tuple[int, ...]]) -> tuple[float, int]:
    """Homogeneity of two samples; cells seen fewer than 10 times are taken together."""
    cells = [(a[cell], b[cell]) for cell in a | b if a[cell] + b[cell] >= 10]
    cells.append((a.total() - sum(x for x, _ in cells), b.total() - sum(y for _, y in cells)))
    ratio = (b.total() / a.total()) ** 0.5
    return sum((ratio * x - y / ratio) ** 2 / (x + y) for x, y in cells if x + y), len(cells) - 1


def test_draws_follow_the_warped_distribution() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0]).repeat(20_000, 1)
    uniform = torch.from_numpy(np.random.default_rng(0).random(20_000))
    for warp, expected in (
        (Warp(1.0, 1.0), torch.softmax(logits[0], -1)),
        (Warp(0.5, 1.0), torch.softmax(logits[0] / 0.5, -1)),
        (Warp(1.0, 0.8), torch.tensor([0.7311, 0.2689, 0, 0])),
    ):
        shares = torch.bincount(draw(logits, uniform, warp), minlength=4) / len(uniform)
        torch.testing.assert_close(shares, expected, atol=0.012, rtol=0)
    assert set(draw(logits, torch.full((20_000,), GREEDY, dtype=torch.float64), PLAIN).tolist()) == {0}


@pytest.fixture
def passes(model: PreTrainedModel) -> Iterator[list[tuple[int, int]]]:
    """The shape of every forward pass: rows, tokens a row."""
    shapes: list[tuple[int, int]] = []
    hook = model.register_forward_pre_hook(
        lambda _, __, given: shapes.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    yield shapes
    hook.remove()


def distinct_prefixes(rows: list[Row], found: dict[int, list[int]]) -> int:
    """What must be computed at least: each prompt with each beginning of an attempt at it that is gone on with."""
    return len({(row.token_ids, *found[row.key][:end]) for row in rows for end in range(1, len(found[row.key]))})


def test_attempts_that_have_drawn_the_same_tokens_are_computed_once(
    model: PreTrainedModel, passes: list[tuple[int, int]]
) -> None:
    rows = [Row(row.key, row.token_ids, row.seed, 8) for row in rows_of(5, 60)]
    found = drawn(SlotDecoder(model, [END], len(rows)), rows)
    least, decoded = distinct_prefixes(rows, found), [count for count, width in passes if width == 1]
    assert least < 0.8 * (sum(map(len, found.values())) - len(rows)), "too few attempts begin alike to show anything"
    assert least <= sum(decoded) <= least + (ROWS - 1) * len(decoded)


def test_a_freed_seat_is_taken_at_once_and_a_prompt_is_read_once(
    model: PreTrainedModel, passes: list[tuple[int, int]]
) -> None:
    rows = rows_of(10, 8)
    found = drawn(SlotDecoder(model, [END], 16), rows)
    tokens = sum(map(len, found.values()))
    assert sum(count for count, width in passes if width > 1) == 10
    decoded = sum(count for count, width in passes if width == 1)
    # A pass over a row gives a token, and an attempt's first token comes with its prompt.
    assert distinct_prefixes(rows, found) <= decoded <= tokens - len(rows) + ROWS * 30
    # Nearly all seats are taken in most passes; those that share a slot make a pass smaller.
    assert [count for count, width in passes if width == 1].count(16) > 0.5 * tokens / 16 - 30


def test_a_batch_too_large_for_the_gpu_is_halved_and_draws_the_same(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = rows_of(6, 4)
    forward = model.forward

    def small_gpu(input_ids: torch.Tensor, **given: Any) -> Any:
        if input_ids.shape[1] == 1 and len(input_ids) > 5:
            raise torch.OutOfMemoryError
        return forward(input_ids, **given)

    whole = drawn(SlotDecoder(model, [END], 20), rows)
    in_chunks = drawn(ChunkDecoder(model, [END], 20), rows)
    monkeypatch.setattr(model, "forward", small_gpu)
    assert drawn(SlotDecoder(model, [END], 20), rows) == whole
    assert drawn(ChunkDecoder(model, [END], 20), rows) == in_chunks
    told = [line.split()[5] for line in capsys.readouterr().err.splitlines()]
    assert told[:2] == ["20", "10"]


def test_memory_too_small_for_one_row_is_an_error(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_gpu(*given: Any, **more: Any) -> Any:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(model, "forward", no_gpu)
    for decoder in (SlotDecoder(model, [END], 8), ChunkDecoder(model, [END], 8)):
        with pytest.raises(torch.OutOfMemoryError):
            drawn(decoder, rows_of(2, 4))


def test_a_row_has_its_own_room_whatever_its_neighbours_have(model: PreTrainedModel) -> None:
    rows = [Row(row.key, row.token_ids, row.seed, 1 + row.key % 7) for row in rows_of(5, 5)]
    whole = drawn(SlotDecoder(model, [END], 6), rows_of(5, 5))
    for decoder in (SlotDecoder(model, [END], 6), ChunkDecoder(model, [END], 6)):
        assert drawn(decoder, rows) == {row.key: whole[row.key][: row.room] for row in rows}


def test_cleared_decoders_draw_as_new_ones(model: PreTrainedModel) -> None:
    rows = rows_of(4, 4)
    for kind in (SlotDecoder, ChunkDecoder):
        decoder = kind(model, [END], 4)
        for row in rows_of(3, 3):
            decoder.add(row)
        decoder.step(PLAIN)
        decoder.clear()
        assert not decoder.busy
        assert drawn(decoder, rows) == drawn(kind(model, [END], 4), rows)
