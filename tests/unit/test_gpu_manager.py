"""Who may use which GPU when, judged from what the driver says at one moment or at two."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from prosetting.core import gpu_manager
from prosetting.core.gpu_manager import Allocation, GpuManager, gpu_env, still_held, usable_ids
from prosetting.core.nvml import Gpu, GpuProcess
from prosetting.errors import GpuError

GIB = 2**30
NO_PID = 2**22 + 1  # above what Linux gives
OTHERS = os.getppid()  # a process that is alive and nobody's here


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_manager, "PATIENCE_S", 0.3)
    monkeypatch.setattr(gpu_manager, "SETTLE_S", 0.1)
    monkeypatch.setattr(gpu_manager, "POLL_S", 0.01)


def gpu(index: int = 0, used_gib: float = 0.0, **memory_gib_by_pid: float) -> Gpu:
    processes = tuple(GpuProcess(int(pid[1:]), round(gib * GIB)) for pid, gib in memory_gib_by_pid.items())
    return Gpu(index, f"GPU-{index}f", "test", 80 * GIB, round(used_gib * GIB), 0, processes)


def manager(*moments: tuple[Gpu, ...], sampling=(0,), training=(0,), ours=(), samples_here=True) -> GpuManager:
    """One that reads these moments one after the other, and the last one from then on."""

    def moments_then_last() -> Iterator[tuple[Gpu, ...]]:
        yield from moments
        while True:
            yield moments[-1]

    reading = moments_then_last()
    allocation = Allocation(sampling, training, samples_here)
    return GpuManager(allocation, lambda: ours, read=lambda: next(reading))


def test_a_child_sees_its_gpus_in_the_drivers_order_and_the_parent_keeps_its_environment() -> None:
    before = dict(os.environ)
    assert gpu_env((4, 0)) == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "4,0"}
    assert gpu_env(())["CUDA_VISIBLE_DEVICES"] == ""
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("environ", "ids"),
    [
        ({}, (0, 1, 2)),
        ({"CUDA_VISIBLE_DEVICES": ""}, ()),
        ({"CUDA_VISIBLE_DEVICES": "2, 0"}, (0, 2)),
        ({"CUDA_VISIBLE_DEVICES": "GPU-1"}, (1,)),
        ({"CUDA_VISIBLE_DEVICES": "7"}, ()),
    ],
)
def test_a_cluster_that_leaves_a_process_some_of_the_gpus_is_obeyed(environ: dict[str, str], ids: tuple) -> None:
    assert usable_ids([gpu(0), gpu(1), gpu(2)], environ) == ids


@pytest.mark.parametrize(
    ("sampling", "training", "samples_here", "turns"),
    [
        ((4,), (0, 1), True, False),
        ((4,), tuple(range(8)), True, True),
        ((), (), True, True),
        ((4,), (), True, False),
        ((), (0,), True, False),
        ((4,), (4,), False, False),
    ],
)
def test_phases_take_turns_where_they_share_a_gpu_or_the_cpu(
    sampling: tuple[int, ...], training: tuple[int, ...], samples_here: bool, turns: bool
) -> None:
    assert Allocation(sampling, training, samples_here).take_turns is turns


def test_a_free_machine_passes_and_a_little_use_is_no_use() -> None:
    manager((gpu(0, 0.5), gpu(1, 2.0)), training=(0, 1)).check_free()


def test_a_machine_without_gpus_is_not_asked() -> None:
    GpuManager(Allocation((), ()), lambda: (), read=lambda: pytest.fail("asked")).check_free()


def test_a_taken_gpu_is_named_with_who_holds_it_and_what_is_free() -> None:
    taken = gpu(1, 41.0, **{f"p{OTHERS}": 40.0})
    with pytest.raises(GpuError) as caught:
        manager((gpu(0), taken, gpu(2)), sampling=(1,), training=(0, 1)).check_free()
    assert (
        f"GPU 1 of PHYSICAL_SOLVER_GPU and PHYSICAL_GRPO_GPU is taken: 41.0 of 80.0 GiB are held by process {OTHERS} ("
        in (caught.value.what)
    )
    assert "free GPUs (0, 2)" in caught.value.next_step
    assert "GPU_SHARING=true" in caught.value.next_step


def test_what_an_earlier_run_held_a_moment_ago_is_waited_for() -> None:
    manager((gpu(0, 30.0),), (gpu(0, 30.0),), (gpu(0, 0.2),)).check_free()


def test_memory_that_the_driver_gives_to_nobody_is_taken_too() -> None:
    with pytest.raises(GpuError, match="by processes that the driver does not name") as caught:
        manager((gpu(0, 30.0),)).check_free()
    assert "there is none now" in caught.value.next_step


def test_what_this_run_holds_already_is_not_somebody_elses() -> None:
    manager((gpu(0, 30.0, p77=30.0),), ours={77}).check_free()


def test_a_gpu_that_went_away_is_named() -> None:
    with pytest.raises(GpuError, match="GPU 3 of PHYSICAL_SOLVER_GPU is not there"):
        manager((gpu(0),), sampling=(3,), training=()).check_free()


def test_memory_that_comes_back_late_is_waited_for() -> None:
    held = gpu(0, 30.0, **{f"p{NO_PID}": 30.0})
    watching = manager((gpu(0, 1.0),), (held,), (held,), (gpu(0, 1.7),))
    watching.begin("sampling")
    watching.wait_given_back("sampling")


def test_memory_that_does_not_come_back_is_an_error_that_names_gpu_and_process() -> None:
    held = gpu(0, 30.0, **{f"p{NO_PID}": 29.0})
    watching = manager((gpu(0, 1.0),), (held,))
    watching.begin("sampling")
    with pytest.raises(GpuError, match=rf"sampling has ended and 29\.0 of 80\.0 GiB of GPU 0 .*{NO_PID}"):
        watching.wait_given_back("sampling")


def test_memory_that_did_not_come_back_is_no_better_the_second_time() -> None:
    held = gpu(0, 30.0, **{f"p{NO_PID}": 29.0})
    watching = manager((gpu(0, 1.0),), (held,))
    watching.begin("sampling")
    for _ in range(2):
        with pytest.raises(GpuError):
            watching.wait_given_back("sampling")
        watching.begin("sampling")


def test_a_process_of_ours_that_outlived_its_phase_is_one_that_holds_memory() -> None:
    held = gpu(0, 31.0, **{f"p{OTHERS}": 30.0})
    watching = manager((gpu(0, 1.0),), (held,), ours={OTHERS})
    watching.begin("training")
    with pytest.raises(GpuError, match="training has ended"):
        watching.wait_given_back("training")


def test_somebody_who_came_or_grew_meanwhile_is_not_taken_for_ours() -> None:
    before = gpu(0, 2.0, p1=2.0)
    now = gpu(0, 40.0, p1=10.0, **{f"p{OTHERS}": 30.0})
    watching = manager((before,), (now,))
    watching.begin("sampling")
    watching.wait_given_back("sampling")


def test_what_is_still_held_is_counted_by_use_where_the_driver_names_nobody() -> None:
    assert still_held(gpu(0, 1.0), gpu(0, 5.0), ()) == 4 * GIB
    assert still_held(gpu(0, 5.0), gpu(0, 1.0), ()) == 0


def test_nothing_is_waited_for_that_was_not_begun_or_is_elsewhere() -> None:
    watching = manager((gpu(0, 70.0),), samples_here=False)
    watching.wait_given_back("training")
    watching.begin("sampling")
    watching.wait_given_back("sampling")
