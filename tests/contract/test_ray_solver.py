"""The Solver on Ray: a real cluster of four simulated nodes, nodes that are killed, and the local Solver beside it."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_nodes import Nodes, ray_nodes, until
from tiny_model import build_tiny_model

from prosetting.collectors.local_solver import LocalSolver
from prosetting.collectors.ray_solver import check_ray_solver, open_ray_solver
from prosetting.collectors.solver import Sample, SampleRequest, SamplingParams, Solver
from prosetting.config import Settings
from prosetting.errors import ConfigError, SolverError
from prosetting.records import QuestionId

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
PARAMS = SamplingParams(max_new_tokens=40, temperature=1.0, top_p=1.0)
ATTEMPTS = 320


def requests(count: int = ATTEMPTS) -> Iterator[SampleRequest]:
    for n in range(count):
        yield SampleRequest(QuestionId(f"q{n // 4}"), n % 4, f"Max has {n // 4} cards. How many?", n)


def by_attempt(samples: Iterator[Sample]) -> dict[tuple[str, int], Sample]:
    found: dict[tuple[str, int], Sample] = {}
    for sample in samples:
        assert (sample.question_id, sample.attempt) not in found, "an attempt came twice"
        found[sample.question_id, sample.attempt] = sample
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def local(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Sample]:
    """What the local Solver draws."""
    log = tmp_path_factory.mktemp("logs") / "sampler.log"
    with LocalSolver(str(model), gpu_ids=(), log_file=log, batch_size=8) as solver:
        return by_attempt(solver.sample(requests(), PARAMS))


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with ray_nodes(4) as started:
        yield started


def settings(nodes: Nodes, model: Path, folder: Path, **changes: object) -> Settings:
    values = {
        "solver_model_path": str(model),
        "workspace_dir": folder / "run",
        "solver_engine": "ray",
        "ray_cluster_address": nodes.address,
        "physical_solver_gpu": (),
        "solver_batch_size": 8,
        "ray_node_timeout": 120.0,
    }
    return Settings.model_validate(values | changes)


def opened(settings: Settings, folder: Path) -> Solver:
    return open_ray_solver(settings, folder, settings.solver_model_path)


def test_a_node_lost_in_mid_round_costs_no_attempt_and_one_that_comes_is_used(
    nodes: Nodes, model: Path, tmp_path: Path, local: dict[tuple[str, int], Sample]
) -> None:
    given = settings(nodes, model, tmp_path)
    check_ray_solver(given)
    solver = open_ray_solver(given, tmp_path, str(model))
    try:
        assert solver.facts.replicas == 4

        def losing_a_node() -> Iterator[Sample]:
            for number, sample in enumerate(solver.sample(requests(), PARAMS)):
                if number == 40:
                    nodes.remove_one_that_runs("Replica")
                if number == 200:
                    nodes.add()
                yield sample

        assert by_attempt(losing_a_node()) == local
        # The fourth replica starts again on the new node; what is drawn then is the same.
        until(lambda: sum("Replica" in actor.title for actor in nodes.actors()) == 4)
        assert by_attempt(solver.sample(requests(64), PARAMS)) == {key: local[key] for key in by_key(local)[:64]}
    finally:
        solver.close()
    assert "is lost" in (tmp_path / "sampler.log").read_text()
    nodes.until_nothing_runs()


def by_key(samples: dict[tuple[str, int], Sample]) -> list[tuple[str, int]]:
    return sorted(samples, key=lambda key: (int(key[0][1:]), key[1]))


def test_a_replica_that_is_killed_is_started_again_by_ray(
    nodes: Nodes, model: Path, tmp_path: Path, local: dict[tuple[str, int], Sample]
) -> None:
    solver = opened(settings(nodes, model, tmp_path, ray_solver_replicas=2), tmp_path)

    def killing_one() -> Iterator[Sample]:
        for number, sample in enumerate(solver.sample(requests(), PARAMS)):
            if number == 40:
                os.kill(next(actor.pid for actor in nodes.actors() if "Replica" in actor.title), signal.SIGKILL)
            yield sample

    try:
        assert by_attempt(killing_one()) == local
    finally:
        solver.close()
    nodes.until_nothing_runs()


def test_without_a_node_for_any_replica_the_deadline_is_ours(nodes: Nodes, model: Path, tmp_path: Path) -> None:
    impossible = settings(nodes, model, tmp_path, ray_solver_gpus=2, ray_solver_replicas=1, ray_node_timeout=3.0)
    with pytest.raises(ConfigError, match="has room for 0"):
        check_ray_solver(impossible)
    solver = opened(impossible, tmp_path)
    try:
        with pytest.raises(SolverError, match="RAY_NODE_TIMEOUT") as caught:
            list(solver.sample(requests(4), PARAMS))
        assert "add nodes" in caught.value.next_step
    finally:
        solver.close()


def test_a_checkpoint_that_cannot_be_loaded_says_so(nodes: Nodes, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    solver = opened(settings(nodes, broken, tmp_path, ray_solver_replicas=1), tmp_path)
    try:
        with pytest.raises(SolverError, match="cannot be loaded"):
            list(solver.sample(requests(4), PARAMS))
    finally:
        solver.close()
    nodes.until_nothing_runs()


def test_a_run_that_is_killed_leaves_no_actor_on_the_cluster(nodes: Nodes, model: Path, tmp_path: Path) -> None:
    code = f"""
        import itertools
        from pathlib import Path
        from prosetting.collectors.ray_solver import open_ray_solver
        from prosetting.collectors.solver import SampleRequest, SamplingParams
        from prosetting.config import Settings
        solver = open_ray_solver(Settings(solver_model_path={str(model)!r}, ray_cluster_address={nodes.address!r},
            physical_solver_gpu=(), solver_batch_size=8), Path({str(tmp_path)!r}), {str(model)!r})
        endless = (SampleRequest("q", n, "How many?", n) for n in itertools.count())
        for sample in solver.sample(endless, SamplingParams(40, 1.0, 1.0)):
            print("drawn", flush=True)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "drawn\n"
        assert nodes.actors()
        run.kill()
    nodes.until_nothing_runs()


def test_without_an_address_a_cluster_is_started_here_and_ends_with_the_run(
    model: Path, tmp_path: Path, local: dict[tuple[str, int], Sample]
) -> None:
    given = Settings.model_validate(
        {"solver_model_path": str(model), "solver_engine": "ray", "ray_solver_gpus": 0, "ray_solver_replicas": 1}
    )
    before = ray_services()
    check_ray_solver(given)
    solver = opened(given.model_copy(update={"physical_solver_gpu": (), "solver_batch_size": 8}), tmp_path)
    try:
        drawn = by_attempt(solver.sample(requests(32), PARAMS))
        assert drawn == {key: local[key] for key in by_key(local)[:32]}
        assert ray_services() > before
    finally:
        solver.close()
    until(lambda: ray_services() <= before)


def ray_services() -> set[int]:
    """Raylets and GCS servers, of whoever."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "cmdline").read_bytes().split(b"\0")[0].endswith((b"/raylet", b"/gcs_server")):
                found.add(int(entry.name))
    return found


def test_closing_in_mid_call_ends_it_with_a_solver_error(nodes: Nodes, model: Path, tmp_path: Path) -> None:
    solver = opened(settings(nodes, model, tmp_path, ray_solver_replicas=1), tmp_path)
    endless = (SampleRequest(QuestionId("q"), n, "How many?", n) for n in itertools.count())
    samples = solver.sample(endless, PARAMS)
    next(samples)
    begun = time.monotonic()
    solver.close()
    assert time.monotonic() - begun < 10
    with pytest.raises(SolverError):
        list(samples)
    nodes.until_nothing_runs()
