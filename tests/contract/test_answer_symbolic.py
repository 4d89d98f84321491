from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

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
        (r"\frac{\sqrt{3}}{10}", "0.2", Verdict.UNKNOWN),
        ("10 m/s", "10", Verdict.UNKNOWN),
        ("10", "10 m/s", Verdict.UNKNOWN),
        ("1", "p", Verdict.UNKNOWN),
        ("B", "12", Verdict.UNKNOWN),
        (r"\frac{1}{2}", r"\cos 60^\circ", Verdict.UNKNOWN),
        (r"\log 5", r"\ln 5", Verdict.UNKNOWN),
        (r"2k\pi", r"-2k\pi", Verdict.UNKNOWN),
        ("-2", "10-12", Verdict.UNKNOWN),
        (r"x+\sqrt{y}", "7", Verdict.INCORRECT),
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


def test_a_killed_comparison_does_not_spoil_the_next(verifier: AnswerVerifier) -> None:
    assert verifier._symbolic.relation("3x", "2^{2^{2^{2^{2^{2}}}}}") == "limit"
    assert verifier.verify("", "2x", r"\boxed{x+x}").verdict is Verdict.CORRECT


def test_a_killed_worker_is_started_again(verifier: AnswerVerifier) -> None:
    verifier.verify("", "2x", r"\boxed{x+x}")
    process = verifier._symbolic._process
    assert process is not None
    process.kill()
    process.wait()
    assert verifier.verify("", "2x", r"\boxed{x+x}").verdict is Verdict.UNKNOWN
    assert verifier.verify("", "2x", r"\boxed{x+x}").verdict is Verdict.CORRECT


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
