from __future__ import annotations

import contextlib
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prosetting.errors import TeacherReplyError
from prosetting.records import Verdict
from prosetting.teachers import replies
from prosetting.teachers.base import GradeReply, NewQuestion

CORRECT = '{"final_answer": "6", "diagnosis": "", "verdict": "correct"}'


@pytest.mark.parametrize(
    "text",
    [
        CORRECT,
        f"```json\n{CORRECT}\n```",
        f"The attempt ends in \\boxed{{6}}, so:\n{CORRECT}\nThat is my verdict. {{}}",
        f'<think>maybe {{"verdict": "incorrect", "diagnosis": "x"}}?</think>\n{CORRECT}',
        f"{CORRECT}\n{CORRECT}",
        '{"final_answer": "6", "verdict": " Correct ", "diagnosis": null, "confidence": 0.9}',
    ],
)
def test_one_object_is_found_bare_fenced_or_in_text(text: str) -> None:
    assert replies.parse_grade(text) == GradeReply(Verdict.CORRECT, "6", "")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (r"\frac{1}{2}", r"\frac{1}{2}"),
        (r"x = \boxed{\text{no}}", r"x = \boxed{\text{no}}"),
        (r"a \\frac12", r"a \frac12"),
        (r"1\u00002\u001b", "1 2 "),
        (r"two\n lines", "two\n lines"),
    ],
)
def test_a_quoted_answer_keeps_its_latex_where_backslashes_were_not_doubled(written: str, read: str) -> None:
    reply = f'{{"final_answer": "{written}", "diagnosis": "", "verdict": "correct"}}'
    assert replies.parse_grade(reply).final_answer == read


HOSTILE = {
    "empty": "",
    "no object": "correct",
    "only thoughts": f"<think>{CORRECT}</think>",
    "two different objects": f'{CORRECT} {{"final_answer": null, "verdict": "incorrect", "diagnosis": ""}}',
    "a key twice": '{"final_answer": null, "verdict": "correct", "verdict": "incorrect", "diagnosis": ""}',
    "inner object of a broken one": f'{{"quote": {CORRECT}, "verdict": "incorr',
    "cut off": CORRECT[:-1],
    "another verdict": '{"final_answer": null, "verdict": "yes", "diagnosis": ""}',
    "final answer missing": '{"verdict": "correct", "diagnosis": ""}',
    "final answer a number": '{"final_answer": 6, "verdict": "correct", "diagnosis": ""}',
    "verdict missing": '{"final_answer": null, "diagnosis": ""}',
    "verdict a boolean": '{"final_answer": null, "verdict": true, "diagnosis": ""}',
    "verdict a list": '{"final_answer": null, "verdict": ["correct"], "diagnosis": ""}',
    "NaN": '{"final_answer": null, "verdict": "correct", "diagnosis": "", "p": NaN}',
    "huge number": '{"final_answer": null, "verdict": "correct", "n": ' + "9" * 20_000 + "}",
    "deep nesting": '{"a":' * 10_000,
    "deep lists": '{"final_answer": null, "verdict": "correct", "x": ' + "[" * 50_000 + "]" * 50_000 + "}",
    "megabytes": '{"final_answer": null, "verdict": "correct", "diagnosis": "' + "x" * 3_000_000 + '"}',
    "many objects": "".join(f'{{"{n}": 1}}' for n in range(9_000)),
    "lone surrogate": '{"final_answer": null, "verdict": "correct", "diagnosis": "\\ud800"}',
    "control character": '{"final_answer": null, "verdict": "correct", "diagnosis": "\\frac{1}{2}"}',
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_grade_reply_is_a_reply_error(text: str) -> None:
    with pytest.raises(TeacherReplyError):
        replies.parse_grade(text)


def parse_variant(text: str) -> NewQuestion | None:
    return replies.parse_new_question(text, "variant")


@settings(deadline=None)
@given(st.text() | st.text(alphabet='{}[]":,\\ut0ecvrdi'))
def test_any_text_is_a_value_or_a_reply_error(text: str) -> None:
    for parse in (replies.parse_grade, replies.parse_answer, replies.parse_analysis, parse_variant):
        with contextlib.suppress(TeacherReplyError):
            parse(text)


@settings(deadline=None)
@given(st.binary())
def test_any_body_is_a_completion_or_a_reply_error(body: bytes) -> None:
    with pytest.raises(TeacherReplyError):
        replies.read_completion(body)


def _completion(**changes: object) -> bytes:
    choice = {"message": {"content": "hello"}, "finish_reason": "stop"} | changes
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": math.nan}}).encode()


def test_a_completion_is_read_and_odd_token_counts_are_zero() -> None:
    assert replies.read_completion(_completion()) == replies.Completion("hello", 7, 0)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>busy</html>",
        b"[]",
        b'{"choices": []}',
        b'{"choices": "x"}',
        b'{"choices": [null]}',
        b"[" * 100_000,
        _completion()[:-9],
        _completion(message={"content": None}),
        _completion(message={"content": [{"text": "x"}]}),
        _completion(finish_reason="length"),
    ],
)
def test_a_body_that_is_no_whole_completion_is_a_reply_error(body: bytes) -> None:
    with pytest.raises(TeacherReplyError):
        replies.read_completion(body)


def test_a_new_question_keeps_the_kind_that_was_written() -> None:
    text = '{"question": " 1+1? ", "reference": "2", "solution": "1+1=2", "kind": "variant"}'
    assert replies.parse_new_question(text, "easier") == NewQuestion("1+1?", "2", "1+1=2", "variant")


def test_declining_is_an_answer() -> None:
    declined = '{"question": null, "reference": null, "solution": null, "kind": "easier"}'
    assert replies.parse_new_question(declined, "easier") is None


@pytest.mark.parametrize(
    "text",
    [
        '{"reference": "2"}',
        '{"question": "1+1?", "reference": 2}',
        '{"question": "1+1?", "reference": null}',
        '{"question": "1+1?", "reference": "2", "kind": "seed"}',
        '{"question": 5, "reference": "2"}',
    ],
)
def test_an_incomplete_new_question_is_a_reply_error(text: str) -> None:
    with pytest.raises(TeacherReplyError):
        replies.parse_new_question(text, "variant")


@pytest.mark.parametrize(
    ("text", "answer"), [('{"answer": " 5 "}', "5"), ('{"answer": null}', None), ('{"answer": ""}', None)]
)
def test_an_answer_or_none(text: str, answer: str | None) -> None:
    assert replies.parse_answer(text) == answer


def test_an_analysis_must_say_something() -> None:
    assert replies.parse_analysis('{"analysis": " Carries. "}') == "Carries."
    with pytest.raises(TeacherReplyError):
        replies.parse_analysis('{"analysis": "  "}')


def test_half_a_character_around_the_json_is_refused_before_it_reaches_a_store():
    body = json.dumps({"choices": [{"message": {"content": 'so \ud83d: {"analysis": "a"}'}}]}).encode()
    with pytest.raises(TeacherReplyError, match="not valid Unicode"):
        replies.read_completion(body)
