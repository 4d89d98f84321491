import asyncio
import json

import pytest

from prosetting.config import Settings
from prosetting.core.concurrency import side_by_side
from prosetting.core.journal import Journal
from prosetting.core.state_manager import StateManager
from prosetting.core.workspace import Workspace
from prosetting.errors import RunPaused, SolverError, WorkspaceError
from prosetting.records import Stage


@pytest.fixture
def state(tmp_path):
    workspace = Workspace.of(Settings(solver_model_path="m", workspace_dir=tmp_path))
    workspace.create()
    with Journal(workspace.journal) as journal:
        yield StateManager(workspace, journal, total_rounds=2)


async def break_down() -> dict:
    raise ZeroDivisionError


async def fail() -> dict:
    raise AssertionError("done again")


def run(state, round_, stage, inputs, output) -> dict:
    """The stage run to its end, with this output unless it is done."""

    async def work() -> dict:
        return output

    return asyncio.run(state.run_stage(round_, stage, inputs, output if callable(output) else work))


def test_a_stage_that_is_done_is_not_done_again(state):
    assert run(state, 1, Stage.DATA_COLLECTION, {"n": 4}, {"n": 1}) == {"n": 1}
    assert run(state, 1, Stage.DATA_COLLECTION, {"n": 4}, fail) == {"n": 1}


def test_a_stage_done_with_other_inputs_is_refused_with_each_difference_and_two_ways_out(state):
    run(state, 2, Stage.DATA_GRADING, {"verifier version": "1", "contract": "t/2", "old": 1}, {})
    with pytest.raises(WorkspaceError) as refused:
        run(state, 2, Stage.DATA_GRADING, {"verifier version": "2", "contract": "t/2", "new": None}, fail)
    first, *differences = refused.value.what.splitlines()
    assert "round 2 · data_grading" in first
    assert [line.strip() for line in differences] == [
        "new: nothing there, None now",
        "old: 1 there, nothing now",
        "verifier version: '1' there, '2' now",
    ]
    assert "put the old values back" in refused.value.next_step
    assert "prosetting fork --from-round 1 --to DIR" in refused.value.next_step


def test_a_stage_is_named_by_its_inputs_alone(state):
    for round_, n in ((1, 4), (2, 4), (3, 5)):
        run(state, round_, Stage.DATA_COLLECTION, {"n": n}, {})
    names = [state.stage_input_hash(round_, Stage.DATA_COLLECTION) for round_ in (1, 2, 3)]
    assert names[0] == names[1] != names[2]


def test_a_stage_that_fails_leaves_no_marker(state):
    with pytest.raises(ZeroDivisionError):
        run(state, 1, Stage.DATA_COLLECTION, {}, break_down)
    assert run(state, 1, Stage.DATA_COLLECTION, {}, {"n": 2}) == {"n": 2}


def test_a_round_is_complete_when_its_five_stages_are(state, tmp_path):
    for stage in Stage:
        assert state.completed_rounds() == []
        run(state, 1, stage, {}, {})
    assert state.completed_rounds() == [1]
    state.write_state("running")
    found = json.loads((tmp_path / "training_state.json").read_text())
    assert (found["completed_rounds"], found["can_continue"]) == ([1], True)


def test_the_progress_file_tells_done_and_open_stages(state, tmp_path):
    run(state, 1, Stage.DATA_COLLECTION, {}, {"attempts": 8})
    found = json.loads((tmp_path / "round_01_progress.json").read_text())
    assert found["stages"] == {"data_collection": {"attempts": 8}}
    assert found["open_stages"][0] == "data_grading"


def test_of_stages_side_by_side_the_earliest_one_is_current_until_it_is_done(state):
    """As the state file tells people."""
    seen = []

    async def both() -> None:
        sampled = asyncio.Event()

        async def sample() -> dict:
            await asyncio.sleep(0)
            seen.append(state.current[1])
            sampled.set()
            return {}

        async def grade() -> dict:
            await sampled.wait()
            await asyncio.sleep(0)
            seen.append(state.current[1])
            return {}

        await asyncio.gather(
            state.run_stage(1, Stage.DATA_COLLECTION, {}, sample), state.run_stage(1, Stage.DATA_GRADING, {}, grade)
        )

    asyncio.run(both())
    assert seen == ["data_collection", "data_grading"]


def test_of_stages_side_by_side_the_one_that_failed_first_is_named(state):
    async def both() -> None:
        async def sample() -> dict:
            await asyncio.sleep(30)
            return {}

        async def grade() -> dict:
            raise SolverError("lost", next_step="start again")

        await side_by_side(
            state.run_stage(1, Stage.DATA_COLLECTION, {}, sample), state.run_stage(1, Stage.DATA_GRADING, {}, grade)
        )

    with pytest.raises(SolverError):
        asyncio.run(both())
    assert state.current == (1, "data_grading")


def test_each_time_a_stage_is_worked_on_is_on_record_with_its_ends(state):
    with pytest.raises(SolverError):
        run(state, 1, Stage.DATA_COLLECTION, {}, lose)
    with pytest.raises(RunPaused):
        run(state, 1, Stage.DATA_COLLECTION, {}, pause)
    run(state, 1, Stage.DATA_COLLECTION, {}, {"n": 1})
    spans = state._journal.spans()
    assert [(one.name, one.outcome, one.note) for one in spans] == [
        ("data_collection", "failed", "lost"),
        ("data_collection", "paused", "the budget is spent"),
        ("data_collection", "done", ""),
    ]
    assert all(one.ended_at is not None and one.began_at <= one.ended_at for one in spans)


def test_what_a_killed_run_was_at_is_told_as_killed_by_the_next_one(state):
    state._journal.begin_span(1, Stage.DATA_COLLECTION)
    again = StateManager(state._workspace, state._journal, total_rounds=2)
    run(again, 1, Stage.DATA_COLLECTION, {}, {})
    first, second = state._journal.spans()
    assert (first.outcome, first.ended_at) == ("killed", first.began_at)
    assert second.outcome == "done"


async def lose() -> dict:
    raise SolverError("lost", next_step="start again")


async def pause() -> dict:
    raise RunPaused("the budget is spent", next_step="raise it")
