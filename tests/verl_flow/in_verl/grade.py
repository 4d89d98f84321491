"""Prints the rewards that verl's own reward worker gives: overrides and attempts on stdin, as Ray's actors would."""

import asyncio
import json
import sys
from pathlib import Path

import numpy as np
import torch
import verl
from hydra import compose, initialize_config_dir
from tensordict import TensorDict
from verl import DataProto
from verl.experimental.reward_loop.reward_loop import RewardLoopWorker

asked = json.load(sys.stdin)
with initialize_config_dir(str(Path(verl.__file__).parent / "trainer" / "config"), version_base=None):
    config = compose("ppo_trainer", asked["overrides"])


def one(worker: RewardLoopWorker, row: dict, response: str, ended: bool) -> DataProto:
    """One attempt as verl's agent loop hands it over: nothing is padded."""
    tokenizer = worker.input_tokenizer
    prompt = torch.tensor([tokenizer.encode(row["prompt"][0]["content"])])
    answer = torch.tensor([tokenizer.encode(response) + [tokenizer.eos_token_id] * ended])
    ids = torch.cat([prompt, answer], dim=1)
    batch = TensorDict(
        {"prompts": prompt, "responses": answer, "input_ids": ids, "attention_mask": torch.ones_like(ids)}, batch_size=1
    )
    columns = {name: np.array([row[name]], dtype=object) for name in ("data_source", "reward_model", "extra_info")}
    return DataProto(batch=batch, non_tensor_batch=columns | {"__num_turns__": np.array([2])})


async def main() -> None:
    worker = RewardLoopWorker(config)
    attempts = [one(worker, a["row"], a["response"], a["ended"]) for a in asked["attempts"]]
    outputs = await asyncio.gather(*(worker.compute_score(data) for data in attempts), return_exceptions=True)
    told = [output if isinstance(output, dict) else {"error": str(output)} for output in outputs]
    print("\n" + json.dumps({"manager": type(worker.reward_manager).__mro__[1].__name__, "rewards": told}))


asyncio.run(main())
