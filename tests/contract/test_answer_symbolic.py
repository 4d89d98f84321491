from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from prosetting.processors.answer_verifier import AnswerVerifier
from prosetting.records import Verdict


@pytest.fixture(scope="module")
def verifier() -> Iterator[AnswerVerifier]:
    with AnswerVerifier() as made:
        yield made


@pytest.mark.parametrize(
    ("reference", "response", "verdict"),
    [
        (r"5\sqrt{2}", r"\sqrt{50}", Verdict.CORRECT),
        (r"\frac{\sqrt{5}-1}{2}", r"\frac{-1+\sqrt{5}}{2}", Verdict.CORRECT),
        ("x^2-2x+2", "(x-1)^2+1", Verdict.CORRECT),
        (r"\tan^2(y)+1", r"\sec^2(y)", Verdict.CORRECT),
        (r"1 \pm \sqrt{19}", r"1 - \sqrt{19}, 1 + \sqrt{19}", Verdict.CORRECT),
        ("5+i", "(5i-1)/i", Verdict.CORRECT),
        (r"2\sqrt{3}", r"3\sqrt{2}", Verdict.INCORRECT),
        ("20", r"\sqrt{20}", Verdict.INCORRECT),
        ("8-i", "1+2i", Verdict.INCORRECT),
        ("x+1", "x+2", Verdict.INCORRECT),
        ("x", r"\sqrt{x^2}", Verdict.UNKNOWN),
        ("2n+1", "2m+1", Verdict.UNKNOWN),
        ("7", "3+4", Verdict.UNKNOWN),
        (r"\sqrt{2}", "1.4142136", Verdict.UNKNOWN),
        (r"\frac{1}{3} i", r"\int_0^1 x^2 dx", Verdict.UNKNOWN),
    ],
)
def test_expressions_are_compared_by_algebra(
    verifier: AnswerVerifier, reference: str, response: str, verdict: Verdict
) -> None:
    assert verifier.verify("", reference, rf"\boxed{{{response}}}").verdict is verdict


def test_an_expression_that_stands_in_the_question_is_left_open(verifier: AnswerVerifier) -> None:
    grade = verifier.verify("Simplify $\\sqrt{50}$.", r"5\sqrt{2}", r"\boxed{\sqrt{50}}")
    assert grade.verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    "response",
    [
        "9^{9^{9}}",
        "(12345678901234567890)^{12345678}",
        "99999999!",
        r"\sum_{k=1}^{100000000} \frac{1}{k^2}",
        "{" * 300 + "18" + "}" * 300,
        r"\frac{1}{" * 300 + "2" + "}" * 300,
        "(x+1)^{50}(x-1)^{50}(y+2)^{50}" * 9,
    ],
)
def test_hostile_expressions_are_left_open(verifier: AnswerVerifier, response: str) -> None:
    assert verifier.verify("", "3x", rf"\boxed{{{response}}}").verdict is Verdict.UNKNOWN


def test_a_killed_comparison_does_not_spoil_the_next(verifier: AnswerVerifier) -> None:
    verifier.verify("", "3x", r"\boxed{2^{2^{2^{2^{2^{2}}}}}}")
    assert verifier.verify("", "2x", r"\boxed{x+x}").verdict is Verdict.CORRECT


def test_a_killed_worker_is_started_again(verifier: AnswerVerifier) -> None:
    verifier.verify("", "2x", r"\boxed{x+x}")
    process = verifier._symbolic._process
    assert process is not None
    process.kill()
    process.wait()
    assert verifier.verify("", "2x", r"\boxed{x+x}").verdict is Verdict.UNKNOWN
    assert verifier.verify("", "2x", r"\boxed{x+x}").verdict is Verdict.CORRECT


CASES = [("2x", "x+x"), ("2x", "3x"), ("3x", "9^{9^{9}}"), ("18", "18"), (r"\sqrt{8}", r"2\sqrt{2}")]


def _verdicts(verifier: AnswerVerifier) -> list[Verdict]:
    return [verifier.verify("", reference, rf"\boxed{{{response}}}").verdict for reference, response in CASES]


def _send_verdicts(verifier: AnswerVerifier, pipe: multiprocessing.connection.Connection) -> None:
    pipe.send([str(verdict) for verdict in _verdicts(verifier)])
    verifier.close()


def test_verdicts_do_not_depend_on_the_thread(verifier: AnswerVerifier) -> None:
    expected = _verdicts(verifier)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(_verdicts, [verifier] * 4)) == [expected] * 4


def test_verdicts_do_not_depend_on_the_process(verifier: AnswerVerifier) -> None:
    expected = _verdicts(verifier)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_send_verdicts, args=(verifier, sender))
    child.start()
    assert receiver.poll(60)
    assert receiver.recv() == [str(verdict) for verdict in expected]
    child.join(60)
    assert _verdicts(verifier) == expected


def test_the_worker_ends_with_its_stdin() -> None:
    command = [sys.executable, "-m", "prosetting.processors.worker_symbolic"]
    done = subprocess.run(
        command,
        input='{"reference": "2x", "response": "x+x"}\n',
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines() == ['{"ready": true}', '{"relation": "equal"}']
