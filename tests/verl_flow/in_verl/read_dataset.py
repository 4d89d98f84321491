"""Prints what verl's own RLHFDataset makes of training files: ARGUMENTS_JSON on stdin, as verl's trainer would."""

import json
import sys
from pathlib import Path

import verl
from hydra import compose, initialize_config_dir
from verl.trainer.ppo.utils import create_rl_dataset
from verl.utils import hf_tokenizer

asked = json.load(sys.stdin)
with initialize_config_dir(str(Path(verl.__file__).parent / "trainer" / "config"), version_base=None):
    config = compose("ppo_trainer", asked["overrides"])
tokenizer = hf_tokenizer(config.actor_rollout_ref.model.path)
found = []
for file in asked["files"]:
    dataset = create_rl_dataset([file], config.data, tokenizer, None, is_train=True)
    rows = [dataset[index] for index in range(len(dataset))]
    found.append(
        [
            {
                "prompt": tokenizer.apply_chat_template(
                    list(row["raw_prompt"]), add_generation_prompt=True, tokenize=False
                ),
                "data_source": row["data_source"],
                "ground_truth": row["reward_model"]["ground_truth"],
                "extra_info": row["extra_info"],
                "index": int(row["index"]),
            }
            for row in rows
        ]
    )
print("\n" + json.dumps(found))
