"""What a body cost, and whether its text can be trusted to be the one reply; keys found however escaped."""

from __future__ import annotations

import json

import pytest

from prosetting.errors import TeacherReplyError
from prosetting.teachers.budget import Prices, Usage
from prosetting.teachers.endpoint import Endpoint
from prosetting.teachers.http_bodies import usage_of
from prosetting.teachers.replies import read_completion

CHOICE = {"message": {"content": "12345678"}, "finish_reason": "stop"}


def body(**fields: object) -> bytes:
    return json.dumps({"choices": [CHOICE], **fields}).encode()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (body(usage={"prompt_tokens": 11, "completion_tokens": 7}), Usage(11, 7)),
        (body(usage={"prompt_tokens": 11}), Usage(11, 2)),
        (body(usage={"prompt_tokens": -1, "completion_tokens": "7"}), Usage(25, 2)),
        (body(usage=[]), Usage(25, 2)),
        (body(), Usage(25, 2)),
        (b'{"choices": [{"message": {"content": nul', Usage(25, 10)),
        (b"<html></html>", Usage(25, 4)),
        (b"[" * 100_000, Usage(25, 25_000)),
        (b"", Usage(25, 0)),
    ],
)
def test_tokens_are_the_servers_count_or_a_quarter_of_the_characters(answer: bytes, expected: Usage) -> None:
    assert usage_of(answer, prompt_characters=100) == expected


def test_the_text_of_one_choice_is_the_reply() -> None:
    assert read_completion(body()).content == "12345678"


@pytest.mark.parametrize(
    "answer",
    [body(choices=[]), body(choices=[CHOICE, CHOICE]), body()[:-1] + b', "choices": []}', b"", b"[" * 100_000, b"\xff"],
)
def test_an_ambiguous_or_broken_body_is_no_reply(answer: bytes) -> None:
    with pytest.raises(TeacherReplyError):
        read_completion(answer)


def test_a_cost_is_tokens_by_price_of_a_million() -> None:
    assert Prices(prompt=2.0, completion=10.0).cost(Usage(500_000, 100_000)) == 2.0


KEY = "sk-ab/cd-123456"


@pytest.mark.parametrize(
    "text",
    [KEY, f"Bearer {KEY}.", json.dumps(json.dumps(KEY)), "sk-ab\\/cd-123456", "\\u0073k-ab\\\\/cd-12345\\\\u0036"],
)
def test_a_key_is_found_escaped_or_not(text: str) -> None:
    assert Endpoint("http://host/v1", KEY, "judge").is_key_in(text.encode())


def test_a_placeholder_is_no_secret() -> None:
    endpoint = Endpoint("http://host/v1", "EMPTY", "judge")
    assert not endpoint.is_key_in(b"EMPTY")
    assert endpoint.scrubbed("EMPTY") == "EMPTY"
