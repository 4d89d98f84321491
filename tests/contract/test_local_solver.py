"""The local Solver: real transformers in a real child process, on a model of a few kilobytes."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_model import build_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from prosetting.collectors.local_solver import LocalSolver, check_model_folder
from prosetting.collectors.solver import Sample, SampleRequest, SamplingParams
from prosetting.collectors.worker_sampler import end_token_ids
from prosetting.errors import ConfigError, SolverError
from prosetting.records import QuestionId

PARAMS = SamplingParams(max_new_tokens=24, temperature=1.0, top_p=1.0)
PROMPT = "Max starts with 5 cards. How many cards?"


def draw(solver: LocalSolver, asked: Sequence[tuple[str, int | None]], params: SamplingParams = PARAMS) -> list[Sample]:
    """The sample of each (prompt, seed), in their order, all numbered 0 so that they compare by what was drawn."""
    requests = [SampleRequest(QuestionId("q"), attempt, *each) for attempt, each in enumerate(asked)]
    samples = sorted(solver.sample(requests, params), key=lambda sample: sample.attempt)
    assert [sample.attempt for sample in samples] == list(range(len(asked)))
    return [replace(sample, attempt=0) for sample in samples]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def solver(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSolver]:
    with LocalSolver(str(folder), gpu_ids=(), log_file=tmp_path_factory.mktemp("logs") / "solver.log") as started:
        yield started


def test_the_first_line_tells_the_model(solver: LocalSolver) -> None:
    assert solver.facts.model_type == "qwen3"
    assert (solver.facts.device, solver.facts.dtype) == ("cpu", "float32")
    assert solver.facts.chat_template
    assert solver.facts.max_positions == 256


def test_a_seed_fixes_an_attempt_whatever_its_neighbours_are(solver: LocalSolver) -> None:
    alone = draw(solver, [(PROMPT, 7)])[0]
    neighbours = [("More? " * (n + 1), 100 + n) for n in range(9)]
    crowd = draw(solver, [*neighbours[:4], (PROMPT, 7), *neighbours[4:]])
    assert crowd[4] == alone


def test_requests_are_read_as_there_is_room(folder: Path, tmp_path: Path) -> None:
    taken = 0

    def requests() -> Iterator[SampleRequest]:
        nonlocal taken
        for taken in range(1, 201):
            yield SampleRequest(QuestionId("q"), taken, PROMPT, taken)

    with LocalSolver(str(folder), gpu_ids=(), log_file=tmp_path / "log", batch_size=8) as solver:
        ahead = [taken - yielded for yielded, _ in enumerate(solver.sample(requests(), PARAMS))]
    assert len(ahead) == 200
    assert max(ahead) <= 16


def test_a_call_that_is_left_early_leaves_nothing_to_the_next(solver: LocalSolver) -> None:
    left = solver.sample([SampleRequest(QuestionId("left"), n, PROMPT, n) for n in range(200)], PARAMS)
    next(left)
    left.close()
    assert len(draw(solver, [(PROMPT, seed) for seed in range(100)])) == 100


def test_closing_from_another_thread_ends_a_call_with_a_solver_error(folder: Path, tmp_path: Path) -> None:
    solver = LocalSolver(str(folder), gpu_ids=(), log_file=tmp_path / "log", batch_size=2)
    endless = (SampleRequest(QuestionId("q"), n, PROMPT, n) for n in itertools.count())
    samples = solver.sample(endless, PARAMS)
    next(samples)
    closing = threading.Thread(target=solver.close)
    closing.start()
    with pytest.raises(SolverError):
        for _ in samples:
            pass
    closing.join()


def test_the_process_takes_another_checkpoint_or_none(folder: Path, tmp_path: Path) -> None:
    other = build_tiny_model(tmp_path / "other", seed=1)
    asked = [(PROMPT, seed) for seed in range(8)]
    with LocalSolver(str(other), gpu_ids=(), log_file=tmp_path / "log") as fresh:
        expected = draw(fresh, asked)
    with LocalSolver(str(folder), gpu_ids=(), log_file=tmp_path / "log") as solver:
        first, process = draw(solver, asked), solver._child.pid
        assert first != expected
        left = solver.sample([SampleRequest(QuestionId("left"), n, PROMPT, n) for n in range(200)], PARAMS)
        next(left)
        left.close()
        assert solver.load(None)
        assert solver.load(str(other))
        assert draw(solver, asked) == expected
        assert solver.load(str(folder))
        assert draw(solver, asked) == first
        assert solver._child.pid == process


def test_a_process_that_is_gone_takes_no_other_checkpoint(folder: Path, tmp_path: Path) -> None:
    with LocalSolver(str(folder), gpu_ids=(), log_file=tmp_path / "log") as solver:
        draw(solver, [(PROMPT, 1)])
        os.kill(solver._child.pid, signal.SIGKILL)
        solver._child.wait()
        assert not solver.load(str(folder))


def test_a_checkpoint_that_the_process_cannot_load_is_told(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    with LocalSolver(str(folder), gpu_ids=(), log_file=tmp_path / "log") as solver:
        assert solver.load(str(broken))
        with pytest.raises(SolverError, match="cannot be loaded"):
            draw(solver, [(PROMPT, 1)])


def test_different_seeds_draw_different_attempts(solver: LocalSolver) -> None:
    drawn = draw(solver, [(PROMPT, seed) for seed in range(8)])
    assert len({sample.response for sample in drawn}) == 8


def test_seeds_that_differ_in_high_bits_only_draw_different_attempts(solver: LocalSolver) -> None:
    drawn = draw(solver, [(PROMPT, 1), (PROMPT, 1 + (1 << 40))])
    assert drawn[0].response != drawn[1].response


def test_greedy_is_transformers_own_greedy_under_the_chat_template(solver: LocalSolver, folder: Path) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    turns = [{"role": "user", "content": PROMPT}]
    inputs = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = model.generate(**inputs, do_sample=False, max_new_tokens=24)[0, inputs["input_ids"].shape[1] :]
    drawn = draw(solver, [("Hi", 3), (PROMPT, None)])[1]
    assert drawn.response == tokenizer.decode(ids, skip_special_tokens=True)
    assert drawn.completion_tokens == len(ids)


def test_an_end_token_stops_and_is_counted(solver: LocalSolver) -> None:
    drawn = draw(solver, [(PROMPT, seed) for seed in range(64)])
    stopped = [sample for sample in drawn if sample.finish_reason == "stop"]
    assert stopped
    assert all(1 <= sample.completion_tokens <= 24 for sample in stopped)
    assert not any("<|im_end|>" in sample.response for sample in drawn)
    assert all(sample.completion_tokens == 24 for sample in drawn if sample.finish_reason == "length")


def test_a_prompt_that_does_not_fit_leaves_an_empty_attempt_and_the_others_whole(solver: LocalSolver) -> None:
    long, short = draw(solver, [(PROMPT * 40, 1), (PROMPT, 7)])
    assert (long.response, long.finish_reason, long.completion_tokens) == ("", "length", 0)
    assert short == draw(solver, [(PROMPT, 7)])[0]


def test_hostile_text_passes_through_the_protocol(solver: LocalSolver) -> None:
    drawn = draw(solver, [('"}\n{"error": 1}\u2028\x00\ud800', 5)])
    assert len(drawn) == 1


def test_a_killed_child_is_a_solver_error_with_the_end_of_its_log(folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "solver.log"
    with LocalSolver(str(folder), gpu_ids=(), log_file=log) as solver:
        with log.open("a") as stream:
            stream.write("the last thing it said\n")
        os.kill(solver._child.pid, signal.SIGKILL)
        with pytest.raises(SolverError, match="the last thing it said"):
            draw(solver, [(PROMPT, 1)])


def test_a_folder_that_cannot_be_loaded_says_so(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    with pytest.raises(SolverError, match="cannot be loaded") as caught:
        _ = LocalSolver(str(broken), gpu_ids=(), log_file=tmp_path / "solver.log").facts
    assert "SOLVER_MODEL_PATH" in caught.value.next_step


def test_end_tokens_come_from_the_generation_settings_and_the_tokenizer() -> None:
    assert end_token_ids([5, 6], 7) == [5, 6, 7]
    assert end_token_ids(5, 5) == [5]
    with pytest.raises(ValueError, match="no end token"):
        end_token_ids(None, None)


def test_a_model_folder_and_a_hub_name_are_accepted(folder: Path) -> None:
    check_model_folder(str(folder))
    check_model_folder("Qwen/Qwen3-8B")


@pytest.mark.parametrize("path", ["/no/such/model", "./no/such", "~/no-such-model", "a/b/c", "model"])
def test_a_path_where_nothing_is_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="there is no model at"):
        check_model_folder(path)


def test_a_folder_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lacks config.json, \*.safetensors, tokenizer files"):
        check_model_folder(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match="bin weights, which are not loaded"):
        check_model_folder(str(tmp_path))
