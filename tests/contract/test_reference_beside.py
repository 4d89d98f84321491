"""Whether a training computes its reference beside it, by what it trains on."""

from pathlib import Path
from typing import Any

import pytest
from trl import DPOConfig

from prosetting.trainers.worker_dpo import beside


@pytest.mark.parametrize(
    ("cores", "changes", "processes"),
    [
        (1, {}, 0),
        (2, {}, 1),
        (8, {}, 2),
        (64, {}, 0),
        (8, {"num_train_epochs": 2.0}, 0),
        (8, {"use_cpu": False}, 0),
    ],
)
def test_a_processor_with_cores_to_spare_computes_the_reference_beside(
    tmp_path: Path, cores: int, changes: dict[str, Any], processes: int
) -> None:
    given: dict[str, Any] = {"use_cpu": True, "num_train_epochs": 1.0, "bf16": False} | changes
    assert beside(DPOConfig(output_dir=str(tmp_path), **given), cores) == processes
