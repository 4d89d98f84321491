"""A prompt's computation shared by its completions, exactly: attention that knows which tokens share which context.

All other layers of a transformer work token by token, so a stream of distinct tokens gives them nothing to compute
twice. Attention alone needs to know: of short texts it is computed over whole rows, in one call, with the context's
states repeated in each; of longer ones group by group, where the shared context attends to itself and each completion
to the context and to itself. Nothing is cached between calls, so gradient checkpointing, DDP and FSDP see an ordinary
forward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from accelerate.utils import send_to_device
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_outputs import BaseModelOutputWithPast

from prosetting.trainers.worker_dpo_layout import Row, part_of

NAME = "sdpa_shared_prompts"
LIKENESS = 0.02
"""How far hidden states may differ between both ways, as a share of the largest: far above rounding in bf16."""


def shared_prompt_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    prompt_groups: list[dict[str, Any]] | None = None,
    whole_rows: dict[str, Any] | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Transformers' sdpa attention, over (1, heads, tokens, dim) of a stream that one of the last two describes."""
    if whole_rows is not None:
        q, k, v = (_whole_rows(x, whole_rows) for x in (query, key, value))
        output, _ = sdpa_attention_forward(module, q, k, v, None, **kwargs)
        return output.flatten(0, 1).index_select(0, whole_rows["give"])[None], None
    if prompt_groups is None:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return output, None
    sizes = [group["shared"] + group["tokens"] for group in prompt_groups]
    outputs = []
    for group, q, k, v in zip(prompt_groups, *(x.split(sizes, dim=2) for x in (query, key, value)), strict=True):
        parts = [x.split([group["shared"], group["tokens"]], dim=2) for x in (q, k, v)]
        (q_shared, q_own), (k_shared, k_own), (v_shared, v_own) = parts
        if group["shared"]:
            outputs.append(sdpa_attention_forward(module, q_shared, k_shared, v_shared, None, **kwargs)[0])
        own = _rows(q_own, group)
        keys = torch.cat([k_shared.expand(group["rows"], -1, -1, -1), _rows(k_own, group)], dim=2)
        values = torch.cat([v_shared.expand(group["rows"], -1, -1, -1), _rows(v_own, group)], dim=2)
        output, _ = sdpa_attention_forward(module, own, keys, values, group["mask"], **kwargs)
        output = output.reshape(1, -1, *output.shape[2:])
        outputs.append(output if group["unpad"] is None else output.index_select(1, group["unpad"]))
    return torch.cat(outputs, dim=1), None


def _whole_rows(states: torch.Tensor, layout: dict[str, Any]) -> torch.Tensor:
    """(1, heads, tokens, dim) to (rows, heads, longest, dim)."""
    rows = states.squeeze(0).transpose(0, 1).index_select(0, layout["take"])
    return rows.unflatten(0, (layout["rows"], -1)).transpose(1, 2)


def _rows(states: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
    """(1, heads, tokens, dim) to (rows, heads, longest, dim); what is padded stands last, where no query looks."""
    if group["pad"] is not None:
        states = states.index_select(2, group["pad"])
    return states.unflatten(2, (group["rows"], group["longest"])).squeeze(0).transpose(0, 1)


def _with_masks(groups: list[dict[str, Any]], device: torch.device) -> list[dict[str, Any]]:
    """Each group with what its completions may see, (1, 1, longest, shared + longest): context and what is before."""

    def mask(group: dict[str, Any]) -> torch.Tensor:
        shape = 1, 1, group["longest"], group["shared"] + group["longest"]
        return torch.ones(shape, dtype=torch.bool, device=device).tril(group["shared"])

    return [{**group, "mask": mask(group)} for group in groups]


def take_parts(model: PreTrainedModel) -> bool:
    """Have the backbone of `model` accept `parts` and give the hidden states (1, scored tokens, hidden) of them all.

    More than one part is computed one after the other and again in the backward pass, so that only one is in memory
    at a time. True where prompts can be shared: found by comparing both ways on this very model.
    """
    backbone = model.base_model
    plain = backbone.forward

    def scored(part: dict[str, Any], kwargs: dict[str, Any]) -> torch.Tensor:
        inputs = part["inputs"]
        if "prompt_groups" in inputs:
            inputs = {**inputs, "prompt_groups": _with_masks(inputs["prompt_groups"], inputs["input_ids"].device)}
        hidden = plain(**inputs, **kwargs).last_hidden_state
        return hidden.flatten(0, 1).index_select(0, part["scored"])

    def forward(*args: Any, parts: list[dict[str, Any]] | None = None, **kwargs: Any) -> Any:
        if parts is None:
            return plain(*args, **kwargs)
        again = torch.is_grad_enabled() and len(parts) > 1
        hidden = [
            checkpoint(scored, part, kwargs, use_reentrant=False) if again else scored(part, kwargs) for part in parts
        ]
        return BaseModelOutputWithPast(last_hidden_state=torch.cat(hidden)[None])

    backbone.forward = forward
    return _may_share(model) and _shares_rightly(model)


def _may_share(model: PreTrainedModel) -> bool:
    """Whether every layer is plain causal attention, computed by sdpa."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    plain = kinds == {"full_attention"} and not getattr(config, "sliding_window", None)
    return bool(plain and model._supports_attention_backend and config._attn_implementation == "sdpa")


def _shares_rightly(model: PreTrainedModel) -> bool:
    """Sets the attention of `model`; back to what it was where that does not give the hidden states of plain rows."""
    AttentionInterface.register(NAME, shared_prompt_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    many = model.config.get_text_config().vocab_size
    ids = [tuple((7 * at + 3) % many for at in range(start, start + 5)) for start in (0, 20, 40, 60)]
    rows = [Row(ids[0] + ids[1], 5), Row(ids[0] + ids[2][:2], 5), Row(ids[3], 2)]
    was_training = model.training
    model.eval()
    found: list[torch.Tensor] = []
    for part in (part_of(rows, share=False), part_of(rows, share=True), part_of(rows, share=True, spare_pairs=0)):
        model.set_attn_implementation(NAME if found else "sdpa")
        with torch.no_grad():
            states = model.base_model(parts=[send_to_device(part, model.device)], use_cache=False).last_hidden_state
        found.append(states.float())
    model.train(was_training)
    likeness = LIKENESS * float(found[0].abs().max())
    if all(float((found[0] - shared).abs().max()) <= likeness for shared in found[1:]):
        return True
    model.set_attn_implementation("sdpa")
    return False
