from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from prosetting.core.server_faults import ON_THE_WAY, Fault, FaultDraw, fault_help, parse_faults, spoil
from prosetting.errors import ConfigError

COMPLETION: dict[str, Any] = {
    "choices": [{"index": 0, "message": {"content": '{"verdict": "correct"}'}, "finish_reason": "stop"}]
}


def test_a_specification_is_a_list_of_names_parameters_and_probabilities() -> None:
    assert parse_faults(" 429@0.1, 429:30@0.05,429:date@.1,500@0,hang@0.02,") == (
        Fault("429", 0.1, 1.0),
        Fault("429", 0.05, 30.0),
        Fault("429", 0.1, "date"),
        Fault("500", 0.0, None),
        Fault("hang", 0.02, None),
    )
    assert parse_faults("") == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("429", "NAME@PROBABILITY"),
        ("429@", "NAME@PROBABILITY"),
        ("429@2", "NAME@PROBABILITY"),
        ("429@-1", "NAME@PROBABILITY"),
        ("429@nan", "NAME@PROBABILITY"),
        ("hang @ 1", "NAME@PROBABILITY"),
        ("fire@0.1", "no fault 'fire'"),
        ("404@0.1", "no fault '404'"),
        ("html:3@0.1", "takes no parameter"),
        ("429:soon@0.1", "takes seconds of Retry-After or date or none, not 'soon'"),
        ("hang@0.6,500@0.6", "add up to 1.2"),
    ],
)
def test_a_bad_specification_is_one_clear_message_with_an_example(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        parse_faults(text)
    assert "429@0.1,hang@0.02" in caught.value.next_step


def test_a_server_takes_only_the_faults_it_knows() -> None:
    with pytest.raises(ConfigError, match="no fault 'yes'"):
        parse_faults("yes@1", known=ON_THE_WAY)
    assert "gullible" in fault_help()
    assert "gullible" not in fault_help(ON_THE_WAY)


def test_the_same_requests_in_any_order_meet_the_same_faults() -> None:
    faults, bodies = parse_faults("500@0.3,hang@0.3,yes@0.5"), [b"%d" % n for n in range(50)] * 3
    first, second = FaultDraw(faults), FaultDraw(faults)
    met = sorted((body, str(first.draw(body))) for body in bodies)
    assert met == sorted((body, str(second.draw(body))) for body in reversed(bodies))
    other_seed = FaultDraw(faults, seed=1)
    assert met != sorted((body, str(other_seed.draw(body))) for body in bodies)


def test_faults_are_as_frequent_as_ordered_and_a_retry_may_succeed() -> None:
    draw = FaultDraw(parse_faults("500@0.2,hang@0.1,wrong@0.5"))
    met = Counter(fault.name for n in range(3000) for fault in draw.draw(b"%d" % n) if fault)
    assert met["500"] == pytest.approx(600, abs=90)
    assert met["hang"] == pytest.approx(300, abs=70)
    assert met["wrong"] == pytest.approx(1500, abs=120)
    assert {bool(draw.draw(b"the same")[0]) for _ in range(40)} == {True, False}


@pytest.mark.parametrize(
    ("fault", "body"),
    [
        ("empty@1", b""),
        ("wrong_schema@1", b'{"result": {"text": "{\\"verdict\\": \\"correct\\"}"}}'),
        ("wrong_count@1", b'{"choices": []}'),
        ("truncate@1", json.dumps(COMPLETION).encode()[: len(json.dumps(COMPLETION)) // 2]),
        ("reset@1", json.dumps(COMPLETION).encode()),
    ],
)
def test_a_spoilt_body(fault: str, body: bytes) -> None:
    assert spoil(COMPLETION, parse_faults(fault)[0]) == body


def test_a_duplicate_doubles_choices_under_one_index_and_the_keys_of_their_text() -> None:
    choices = json.loads(spoil(COMPLETION, parse_faults("duplicate@1")[0]))["choices"]
    assert [choice["index"] for choice in choices] == [0, 0]
    assert choices[1]["message"]["content"] == '{"verdict": "correct", "verdict": "correct"}'


def test_another_number_of_choices() -> None:
    assert len(json.loads(spoil(COMPLETION, parse_faults("wrong_count:3@1")[0]))["choices"]) == 3
