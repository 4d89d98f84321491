from __future__ import annotations

from fractions import Fraction

import pytest

from prosetting.processors.answer_forms import parse_form, parse_number, spelling_key


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18", 18),
        ("1,080", 1080),
        ("-5", -5),
        ("$-5$", -5),
        (r"\$16,\!386.16", Fraction(1638616, 100)),
        ("10/9", Fraction(10, 9)),
        ("-560999/750", Fraction(-560999, 750)),
        (r"\frac{-3}{4}", Fraction(-3, 4)),
        (r"-\frac32", Fraction(-3, 2)),
        (r"1\frac{4}{5}", Fraction(9, 5)),
        ("3 1/2", Fraction(7, 2)),
        (r"2 \times 10^{-10}", Fraction(2, 10**10)),
        (r"5 \text{ hours}", 5),
        ("12 apples", 12),
        ("x = 9", 9),
        (r"f(x) = 9", 9),
        (r"\text{13}", 13),
        (".4", Fraction(2, 5)),
    ],
)
def test_a_number_is_read_exactly(text: str, value: int | Fraction) -> None:
    number = parse_number(text)
    assert number is not None
    assert number.value == value


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "1,22",
            "0,111",
            "1 000",
            "5 thousand",
            "2 dozen",
            "12 or",
            "1/0",
            "5:30",
            "2 hours 30 minutes",
            "(4, 3)",
        ),
        *(
            "3+4",
            r"\approx 17",
            "25 = 24",
            "½",
            "²",
            "١٨",
            "𝟏𝟖",
            "1\u200b8",
            "9" * 500,
            "1e99999",
            r"\sqrt{4}",
            "not 18",
        ),
    ],
)
def test_what_is_more_or_less_than_a_number_is_no_number(text: str) -> None:
    assert parse_number(text) is None


def test_percent_degrees_and_form_are_kept_beside_the_value() -> None:
    percent, degrees, fraction = parse_number(r"18\%"), parse_number(r"45^\circ"), parse_number("50/2")
    assert percent is not None
    assert percent.percent
    assert degrees is not None
    assert degrees.degrees
    assert fraction is not None
    assert not fraction.reduced


@pytest.mark.parametrize(
    ("text", "kind", "parts"),
    [
        ("1, 2, 3", "list", 3),
        (r"\{1, 2\}", "list", 2),
        (r"5 \text{ and } 15", "list", 2),
        (r"1 \pm \sqrt{19}", "list", 2),
        ("p=5,q=2;p=7,q=2", "list", 2),
        (r"(3, \frac{\pi}{2})", "tuple", 2),
        ("[0, 1)", "tuple", 2),
        ("(1,2),(3,4)", "list", 2),
        (r"(-\infty,-5] \cup [5,\infty)", "union", 2),
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", "matrix", 4),
        ("(x-1)(x+1)", "leaf", 0),
        ("1,000", "leaf", 0),
    ],
)
def test_the_structure_of_an_answer_is_found(text: str, kind: str, parts: int) -> None:
    form = parse_form(text)
    assert (form.kind, len(form.parts)) == (kind, parts)


def test_spellings_of_one_answer_have_one_key() -> None:
    assert spelling_key(r"$\dfrac12$.") == spelling_key(r"\frac{1}{2}")
    assert spelling_key(r"x \in \left[-2, 7\right]") == spelling_key("[-2,7]")
    assert spelling_key(r"\mbox{Evelyn}") == spelling_key("Evelyn")
    assert spelling_key("[0,1)") != spelling_key("(0,1)")
