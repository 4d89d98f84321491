import io

import pytest

from prosetting.config import Settings
from prosetting.errors import RunStopped, SolverError, TrainingError
from prosetting.managers.gates import AfterFailure, AskingGate, AutomaticGate


def asking(typed: str) -> tuple[AskingGate, io.StringIO]:
    output = io.StringIO()
    return AskingGate(None, io.StringIO(typed), output), output


def test_c_goes_on():
    gate, output = asking("c\n")
    gate.before_round(1, lambda: "status")
    assert "Preparing to execute Round 1 training" in output.getvalue()


def test_s_shows_the_status_and_asks_again():
    gate, output = asking("s\nS\nc\n")
    gate.before_round(1, lambda: "THE STATUS")
    assert output.getvalue().count("THE STATUS") == 2


@pytest.mark.parametrize("typed", ["q\n", ""])
def test_q_and_the_end_of_input_stop_the_run_resumably(typed):
    gate, _ = asking(typed)
    with pytest.raises(RunStopped) as stopped:
        gate.before_round(2, lambda: "")
    assert stopped.value.exit_code == 3


def test_another_key_is_asked_again():
    gate, output = asking("x\n\nc\n")
    gate.before_round(1, lambda: "")
    assert "Please type one of" in output.getvalue()


def test_r_retries_a_failed_round():
    gate, _ = asking("r\n")
    assert gate.after_failure(1, SolverError("lost", next_step=""), 1) is AfterFailure.RETRY


def test_going_on_without_training_is_offered_only_when_training_failed():
    gate, output = asking("c\nq\n")
    assert gate.after_failure(3, SolverError("lost", next_step=""), 1) is AfterFailure.STOP
    assert "without training" not in output.getvalue()
    gate, _ = asking("c\n")
    assert gate.after_failure(3, TrainingError("lost", next_step=""), 1) is AfterFailure.SKIP_TRAINING


def automatic(**settings) -> AutomaticGate:
    return AutomaticGate(Settings(solver_model_path="m", auto_retry_delay=0, **settings))


def test_automatic_mode_retries_as_often_as_set_and_then_stops():
    gate = automatic(auto_max_retries=2)
    error = TrainingError("lost", next_step="")
    decisions = [gate.after_failure(3, error, n) for n in (1, 2, 3)]
    assert decisions == [AfterFailure.RETRY, AfterFailure.RETRY, AfterFailure.STOP]


def test_automatic_mode_can_go_on_without_training_but_not_without_attempts():
    gate = automatic(auto_retry_enabled=False, auto_continue_on_failure=True)
    assert gate.after_failure(3, TrainingError("lost", next_step=""), 1) is AfterFailure.SKIP_TRAINING
    assert gate.after_failure(3, SolverError("lost", next_step=""), 1) is AfterFailure.STOP
