import pytest

from prosetting.managers.training_rounds import TRAIN_ON


@pytest.mark.parametrize(
    ("train_on", "round_", "used", "expected"),
    [
        ("untrained", 3, set(), [1, 2, 3]),
        ("untrained", 4, {1, 2, 3}, [4]),
        ("untrained", 5, {1, 2, 3}, [4, 5]),
        ("round", 3, set(), [3]),
        ("all", 4, {1, 2, 3}, [1, 2, 3, 4]),
    ],
)
def test_a_training_round_uses_the_pairs_that_train_on_names(train_on, round_, used, expected):
    assert TRAIN_ON[train_on](round_, used) == expected
