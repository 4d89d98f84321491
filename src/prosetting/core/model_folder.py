"""What makes a folder a Hugging Face model that every engine here can load. No torch needed to tell."""

from __future__ import annotations

import re
from pathlib import Path

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def is_hub_name(path: str) -> bool:
    """Whether `path` can only be meant as a name on the hub, such as Qwen/Qwen3-8B."""
    return HUB_NAME.fullmatch(path) is not None and not Path(path).exists()


def missing_parts(folder: Path) -> list[str]:
    """What `folder` lacks to be a model folder, in words; empty when it is whole."""
    missing = []
    if not (folder / "config.json").is_file():
        missing.append("config.json")
    if not any(folder.glob("*.safetensors")):
        only_bin = any(folder.glob("*.bin"))
        missing.append("*.safetensors (it has .bin weights, which are not loaded)" if only_bin else "*.safetensors")
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        missing.append("tokenizer files (tokenizer.json or the like)")
    return missing
