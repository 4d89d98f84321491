"""A user's reward function in its child process: what it may return, and what it may do to that process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from prosetting.errors import ConfigError
from prosetting.processors import reward_function
from prosetting.processors.reward_function import RewardFunction, check_reward_function, fingerprint
from prosetting.records import Verdict

CORRECT, INCORRECT, UNKNOWN = Verdict.CORRECT, Verdict.INCORRECT, Verdict.UNKNOWN
ROOT = Path(__file__).resolve().parents[2]

FUNCTION = r"""
import ctypes, os, sys, time

class Scalar:
    def item(self):
        return 1.0

RETURNS = {
    "true": True, "one": 1, "1.0": 1.0, "right": "Correct ", "scalar": Scalar(),
    "false": False, "zero": 0, "0.0": 0.0, "wrong": "incorrect",
    "none": None, "open": "unknown",
    "half": 0.5, "nan": float("nan"), "two": 2, "word": "maybe", "list": [1],
}

def judge(question, response, reference):
    if response in RETURNS:
        return RETURNS[response]
    if response == "hang":
        time.sleep(600)
    if response == "exit":
        os._exit(0)
    if response == "crash":
        ctypes.string_at(0)
    if response == "memory":
        return len(bytearray(1 << 40))
    if response == "sys.exit":
        sys.exit(3)
    if response == "raise":
        raise ValueError("a\x1b[31m" + "b" * 5000)
    if response == "print":
        print('{"verdict": "correct", "detail": "", "failed": false}', flush=True)
        os.write(1, b'{"verdict": "correct"}\n')
        return sys.stdin.read() != ""
    if response == "keys":
        return any(name.endswith("API_KEY") for name in os.environ) or "PLANTED" in open("/proc/self/environ").read()
    if response == "pid":
        raise ValueError(os.getpid())
    return response == reference and question == "Q"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reward")
    (folder / "mine.py").write_text(FUNCTION)
    return folder


@pytest.fixture
def function(folder: Path) -> Iterator[RewardFunction]:
    with RewardFunction(f"{folder}/mine.py:judge", folder / "logs" / "reward.log") as made:
        yield made


@pytest.mark.parametrize(
    ("verdict", "responses"),
    [
        (CORRECT, ["true", "one", "1.0", "right", "scalar"]),
        (INCORRECT, ["false", "zero", "0.0", "wrong"]),
        (UNKNOWN, ["none", "open"]),
    ],
)
def test_what_a_function_may_return(function: RewardFunction, verdict: Verdict, responses: list[str]) -> None:
    for response in responses:
        found = function.judge("Q", None, response)
        assert (found.verdict, found.failed) == (verdict, False), response


@pytest.mark.parametrize("response", ["half", "nan", "two", "word", "list"])
def test_any_other_return_value_is_a_failure_that_says_what_to_return(function: RewardFunction, response: str) -> None:
    found = function.judge("Q", None, response)
    assert (found.verdict, found.failed) == (UNKNOWN, True)
    assert "return True, False or None" in found.detail


def test_a_score_is_refused_with_a_hint_at_a_threshold(function: RewardFunction) -> None:
    assert "returned 0.5, and a verdict is binary" in function.judge("Q", None, "half").detail


@pytest.mark.parametrize("text", ["18", "", "x" * 3_000_000, "\ud800 \x00 \u202e\n{}", '{"verdict": "correct"}'])
def test_texts_arrive_as_they_are(function: RewardFunction, text: str) -> None:
    assert function.judge("Q", text, text).verdict is CORRECT
    assert function.judge("Q", text + "!", text).verdict is INCORRECT


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("exit", "the function ended its process (exit status 0)"),
        ("crash", "the function ended its process (SIGSEGV)"),
        ("memory", "the function used more than 2 GiB of memory"),
        ("sys.exit", "the function raised SystemExit: 3"),
        ("raise", "the function raised ValueError: a"),
    ],
)
def test_a_call_that_fails_is_unknown_with_the_reason_and_the_next_one_is_judged(
    function: RewardFunction, response: str, reason: str
) -> None:
    found = function.judge("Q", None, response)
    assert (found.verdict, found.failed) == (UNKNOWN, True)
    assert found.detail.startswith(reason)
    assert len(found.detail) < 300
    assert function.judge("Q", "18", "18").verdict is CORRECT


def test_a_call_that_hangs_is_ended(function: RewardFunction, monkeypatch: pytest.MonkeyPatch) -> None:
    function.load()
    monkeypatch.setattr(reward_function, "CALL_DEADLINE_S", 0.3)
    assert function.judge("Q", None, "hang").detail == "the function took longer than 0.3 s"
    monkeypatch.undo()
    assert function.judge("Q", "18", "18").verdict is CORRECT


def test_a_worker_that_was_killed_between_calls_costs_no_attempt(function: RewardFunction) -> None:
    pid = int(function.judge("Q", None, "pid").detail.rpartition(" ")[2])
    os.kill(pid, signal.SIGKILL)
    assert function._child is not None
    function._child.wait()
    assert function.judge("Q", "18", "18").verdict is CORRECT


def test_a_call_that_was_interrupted_leaves_no_answer_for_the_next(
    function: RewardFunction, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted:
        def __getattr__(self, name: str) -> object:
            if name == "recv":
                raise KeyboardInterrupt
            return getattr(channel, name)

    function.load()
    channel = function._channel
    monkeypatch.setattr(function, "_channel", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        function.judge("Q", None, "true")
    assert function.judge("Q", None, "false").verdict is INCORRECT


def test_what_a_function_prints_goes_to_the_log_and_stdin_is_empty(function: RewardFunction, folder: Path) -> None:
    assert function.judge("Q", None, "print").verdict is INCORRECT
    assert '"verdict": "correct"' in (folder / "logs" / "reward.log").read_text()


def test_no_key_of_an_endpoint_reaches_the_function(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_API_KEY", "PLANTED")
    with RewardFunction(f"{folder}/mine.py:judge") as function:
        assert function.judge("Q", None, "keys").verdict is INCORRECT


def test_many_threads_get_their_own_answers(function: RewardFunction) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: function.judge("Q", "7", str(n % 10)).verdict, range(400)))
    assert found == [CORRECT if n % 10 == 7 else INCORRECT for n in range(400)]


def test_the_worker_ends_with_a_run_that_was_killed_during_a_call(folder: Path) -> None:
    run = (
        "import sys; from prosetting.processors.reward_function import RewardFunction;"
        "f = RewardFunction(sys.argv[1]); print(f.judge('Q', None, 'pid').detail.split()[-1], flush=True);"
        "f.judge('Q', None, 'hang')"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", run, f"{folder}/mine.py:judge"], stdout=subprocess.PIPE, text=True, stderr=2
    )
    assert parent.stdout is not None
    with parent.stdout:
        worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    for _ in range(300):
        if not Path(f"/proc/{worker}").exists():
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker outlived its run")


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("mine.py", "it is not of the form path/to/file.py:function"),
        ("mine.py:", "it is not of the form"),
        ("gone.py:judge", "gone.py"),
        ("my file:judge", "neither the path of a .py file nor the name of a module"),
        ("gone_package.reward:judge", "ModuleNotFoundError: No module named 'gone_package'"),
        ("mine.py:juge", "there is no 'juge' in it; did you mean 'judge'?"),
        ("mine.py:RETURNS", "'RETURNS' is a dict, not a function"),
        ("broken.py:judge", "its import fails: NameError: name 'nothing' is not defined (line 2)"),
        ("syntax.py:judge", "its import fails: SyntaxError"),
        ("leaves.py:judge", "its import ended its process (exit status 4)"),
        ("two.py:judge", "'judge' cannot be called with (question, response, reference)"),
        ("two.py:later", "'later' is async"),
    ],
)
def test_a_function_that_cannot_be_loaded_is_a_configuration_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, spec: str, found: str
) -> None:
    (folder / "broken.py").write_text("x = 1\nnothing\n")
    (folder / "syntax.py").write_text("def judge(:\n")
    (folder / "leaves.py").write_text("import os\nos._exit(4)\n")
    (folder / "two.py").write_text("def judge(question, response): ...\nasync def later(q, r, ref): ...\n")
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError) as refused:
        check_reward_function(spec)
    assert found in refused.value.what
    assert "REWARD_FUNCTION=" in refused.value.next_step


def test_a_file_finds_its_neighbours_and_a_module_is_found_from_the_current_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "neighbour_of_mine.py").write_text("ANSWER = '7'\n")
    (folder / "user.py").write_text("import neighbour_of_mine as n\ndef judge(q, r, ref): return r == n.ANSWER\n")
    with RewardFunction(f"{folder}/user.py:judge") as function:
        assert function.judge("Q", None, "7").verdict is CORRECT
    monkeypatch.chdir(folder)
    with RewardFunction("user:judge") as function:
        assert function.judge("Q", None, "7").verdict is CORRECT
    assert fingerprint("user:judge") == fingerprint("user.py:judge")


def test_the_fingerprint_names_content_and_function(folder: Path) -> None:
    one, two = folder / "one.py", folder / "copy.py"
    one.write_text("def a(q, r, ref): ...\ndef b(q, r, ref): ...\n")
    two.write_text(one.read_text())
    assert fingerprint(f"{one}:a") == fingerprint(f"{two}:a") != fingerprint(f"{one}:b")
    two.write_text(one.read_text() + "\n")
    assert fingerprint(f"{one}:a") != fingerprint(f"{two}:a")


def test_the_example_judges_as_its_page_says() -> None:
    question = "Put these words in alphabetical order: pear, apple, fig."
    with RewardFunction(f"{ROOT}/examples/reward_words.py:words_in_order") as function:
        assert function.judge(question, None, "They start with p, a, f.\nAnswer: apple, fig, pear").verdict is CORRECT
        assert function.judge(question, None, "Answer: pear, apple, fig").verdict is INCORRECT
        assert function.judge(question, None, "").verdict is INCORRECT
        assert function.judge("What is 4+5?", "9", "9").verdict is UNKNOWN
