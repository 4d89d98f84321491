"""A training's figures from its log, whether or not it was stopped in between."""

from __future__ import annotations

from prosetting.trainers.worker_dpo import logged_metrics


def entry(step: int, grad_norm: float) -> dict[str, float]:
    return {"step": step, "loss": 1.0, "rewards/margins": 0.5, "logps/chosen": -2.0, "grad_norm": grad_norm}


def test_the_step_at_which_a_training_was_stopped_has_no_say_in_the_largest_gradient() -> None:
    whole = [entry(1, 3.0), *(entry(step, float(step)) for step in (4, 8, 11))]
    stopped = [*whole[:2], entry(6, 99.0), *whole[2:]]
    assert logged_metrics(stopped, every=4) == logged_metrics(whole, every=4)
    assert logged_metrics(whole, every=4)["grad_norm_max"] == 11.0
