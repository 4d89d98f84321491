"""Which models share a prompt's computation, and that all ways give a completion the same hidden states."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from prosetting.trainers.worker_dpo_attention import NAME, take_parts
from prosetting.trainers.worker_dpo_layout import SPARE_PAIRS, Row, part_of, split

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
}
ROWS = [
    Row((5, 6, 7, 8, 11, 12, 13), 4),
    Row((5, 6, 7, 8, 21), 4),
    Row((5, 6, 7, 8, 31, 32, 33, 34, 35), 4),
    Row((9, 10, 41, 42), 1),
    Row((50, 51, 52, 53, 61, 62), 4),
    Row((50, 51, 52, 53, 71, 72), 4),
]


def a_model(kind: str, **changes: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZES | changes)).eval()


def hidden(model: PreTrainedModel, parts: list[list[Row]], share: bool, spare: int = SPARE_PAIRS) -> torch.Tensor:
    return model.base_model(parts=[part_of(part, share, spare) for part in parts], use_cache=False).last_hidden_state


@pytest.mark.parametrize("kind", ["qwen3", "llama", "qwen2", "mistral", "smollm3"])
@pytest.mark.parametrize("spare", [SPARE_PAIRS, 0], ids=["whole rows", "groups"])
def test_shared_prompts_give_the_hidden_states_of_whole_sequences(kind: str, spare: int) -> None:
    model = a_model(kind, sliding_window=None)
    assert take_parts(model)
    assert model.config._attn_implementation == NAME
    whole = hidden(model, [ROWS], share=False)
    assert whole.shape == (1, 3 + 1 + 5 + 3 + 2 + 2, 32)
    assert torch.allclose(hidden(model, [ROWS], True, spare), whole, atol=1e-5)
    assert torch.allclose(hidden(model, split(ROWS, 6, True), True, spare), whole, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("mistral", {"sliding_window": 3}),  # a window counts positions, not what is shared
        ("qwen3", {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}),
        ("qwen3", {"attn_implementation": "eager"}),
        ("gemma2", {}),  # its attention caps logits
        ("bloom", {"hidden_size": 32, "n_head": 4, "n_layer": 2}),  # positions are in its attention
    ],
)
def test_models_of_another_attention_compute_whole_sequences(kind: str, changes: dict[str, Any]) -> None:
    model = a_model(kind, **changes)
    assert not take_parts(model)
    assert model.config._attn_implementation != NAME
    alone = [hidden(model, [[row]], share=False) for row in ROWS]
    assert torch.allclose(hidden(model, [ROWS], share=False), torch.cat(alone, dim=1), atol=1e-5)


def test_a_saved_model_does_not_ask_for_this_attention(tmp_path: Any) -> None:
    model = a_model("qwen3")
    take_parts(model)
    model.save_pretrained(tmp_path)
    assert NAME not in (tmp_path / "config.json").read_text()
