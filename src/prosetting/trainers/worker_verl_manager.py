"""verl's own `naive` reward manager, which also tells the reward function whether an attempt was cut off.

Loaded by verl. `naive` and not `rate_limited`: that one gives 0.0 for a reward function that fails or takes long.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from verl import DataProto
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager


class CutOffAwareRewardManager(NaiveRewardManager):
    async def run_single(self, data: DataProto) -> dict[str, Any]:
        """`data` holds one attempt: `responses` and `attention_mask` of shape (1, tokens)."""
        data = data[-1:]
        item = data[0]
        tokens = item.batch["responses"]
        length = int(item.batch["attention_mask"][-len(tokens) :].sum())
        full = length >= self.config.data.max_response_length
        cut_off = full and int(tokens[length - 1]) != self.tokenizer.eos_token_id
        # A row of its own: verl's managers write into extra_info, and attempts at one question may share it.
        info = {**item.non_tensor_batch["extra_info"], "cut_off": cut_off}
        data.non_tensor_batch["extra_info"] = np.array([info], dtype=object)
        return await super().run_single(data)
