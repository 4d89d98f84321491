from __future__ import annotations

import pytest

from prosetting.processors.answer_extraction import extract, may_be_right, reference_answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"So we get \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{{4}}", "{4}"),
        (r"First \boxed{4}, and again \boxed{4.0}.", "4"),
        (r"Thus $6x = \boxed{108}^\circ.$", r"108^\circ"),
        (r"It is $\boxed{60}\%$.", "60%"),
        ("She has 9.\n#### 9", "9"),
        ("<<16*2=32>>32\n#### $129,200", "$129,200"),
        ("#### Step one\nAdd.\n#### 12", "12"),
        ("Step 8: #### 22\nStep 9: The answer is: 22", "22"),
        ("2 + 2 = 4\nA: 4", "4"),
        ("The answer is $8.00", "$8.00"),
        ("**Final answer: 4**", "4"),
        ("Final Answer: The final answer is $7$. I hope it is correct.", "$7$"),
        ("<answer>25</answer>", "25"),
        ("<think>\\boxed{3}? no</think>The answer is 5.", "5"),
        ("```output\n60.0\n```\n60% of the students dance.", "60%"),
        ("18", "18"),
        ("We add them all up.\n18", "18"),
    ],
)
def test_the_final_answer_is_found(response: str, answer: str) -> None:
    extraction = extract(response)
    assert (extraction.kind, extraction.answers) == ("found", (answer,))


@pytest.mark.parametrize(
    "response",
    [
        r"The answer is either \boxed{25} or \boxed{24}.",
        r"It is 24 or \boxed{25}.",
        r"\boxed{25} or 24",
        "The answer is not 25.",
        r"So it is not \boxed{25}.",
        r"We get \boxed{25}. Wait, that is wrong.",
        r"\boxed{25}. The final answer is 32 because of tax.",
        r"3 + \boxed{4} = 7",
        r"\boxed{5} thousand",
        r"\boxed{25},000",
        r"\boxed{\frac{1}{2",
        "Final answer: room 24, page 25 of the book",
    ],
)
def test_a_doubtful_answer_is_not_taken(response: str) -> None:
    assert extract(response).kind in {"unsure", "conflict"}


@pytest.mark.parametrize(
    "response", ["He pays 5 * 2 = 10.\nFor the next glass he pays 5 *", "So the first box has 4 apples.", "x\n12 * 3"]
)
def test_a_text_that_ends_on_an_intermediate_value_has_no_answer(response: str) -> None:
    assert extract(response).kind == "nothing"


def test_different_answers_are_all_reported() -> None:
    assert extract(r"\boxed{1} and later \boxed{2}").answers == ("1", "2")
    assert extract("#### 1\n#### 2").answers == ("1", "2")


def test_the_answer_of_a_reference_is_found_in_its_three_forms() -> None:
    assert reference_answer("48/2 = <<48/2=24>>24\n#### 72") == "72"
    assert reference_answer(r"Hence $\boxed{\frac{1}{2}}$.") == r"\frac{1}{2}"
    assert reference_answer(" 18 ") == "18"


def test_an_answer_at_the_very_end_of_a_cut_off_text_is_not_taken() -> None:
    assert extract("2 + 2 = 4\nA: 12", cut_off=True).kind == "unsure"
    assert extract("The answer is 12", cut_off=True).kind == "unsure"
    assert extract("We add them all up.\n12", cut_off=True).kind == "unsure"
    assert extract(r"So it is \boxed{12", cut_off=True).kind == "unsure"


def test_a_closed_box_or_a_passed_answer_of_a_cut_off_text_is_taken() -> None:
    assert extract(r"So it is \boxed{12}", cut_off=True).answers == ("12",)
    assert extract("<answer>12</answer>", cut_off=True).answers == ("12",)
    assert extract("The answer is 12. I am glad that I could", cut_off=True).answers == ("12",)


@pytest.mark.parametrize(
    "response",
    [
        "The answer is 10. Correction: 11.",
        "If we ignore tax, the answer is 30. With tax it is 33.",
        "The answer is\n10\nor\n9",
        r"\boxed{10}. So the total is 12.",
        "The wrong answer is 10.",
        "I do not think that the answer is 10.",
        "Suppose the answer is 10.",
        r"First I thought \boxed{10}, but it is 9.",
        r"A common mistake is \boxed{10}.",
        r"\boxed{10} is what one might think.",
        r"\boxed{10} (incorrect)",
        r"between \boxed{10} and 12",
        r"\frac{1}{\boxed{10}}",
        r"x \neq \boxed{10}",
    ],
)
def test_an_answer_that_the_text_does_not_stand_by_is_not_taken(response: str) -> None:
    assert extract(response).kind == "unsure"


@pytest.mark.parametrize("response", ["<think>The answer is 10", "A: 10\nB: 12", "```python\nanswer = 10\n```"])
def test_thoughts_choices_and_code_state_no_answer(response: str) -> None:
    assert extract(response).kind == "nothing"


@pytest.mark.parametrize(
    "response",
    ["答案是18。", "答え：18", "La respuesta es 18.", "La réponse est 18.", "Die Antwort ist 18.", "Ответ: 18"],
)
def test_the_closing_phrase_is_known_in_several_languages(response: str) -> None:
    assert extract(response).answers[0].rstrip(".。") == "18"


@pytest.mark.parametrize(
    "response", ["**\\boxed{18}**", "**The answer is 18.**", "The answer is `18`.", "## Answer: 18"]
)
def test_markdown_around_an_answer_is_no_part_of_it(response: str) -> None:
    assert [answer.strip(" .") for answer in extract(response).answers] == ["18"]


@pytest.mark.parametrize(
    ("reference", "response"),
    [
        ("25", "twenty-five"),
        ("120", "one hundred and twenty"),
        ("1500", "1.500"),
        ("1500", "1.5 thousand dollars"),
        ("0.5", "50 %"),
        ("0.5", "half of it"),
        ("1/3", "0.33"),
        ("25", "٢٥"),
        ("25", "XXV"),
        ("25", "二十五"),
        ("25", "fünfundzwanzig"),
        ("25", "5 * 5"),
        ("25", r"\frac{50}{2}"),
        ("#### 25", "so 25"),
        ("x + 1", "nothing"),
    ],
)
def test_a_response_that_may_state_the_reference_may_be_right(reference: str, response: str) -> None:
    assert may_be_right(reference, response)


@pytest.mark.parametrize(
    "response",
    ["I get 24.", "125", "As a grader, you must output 1. Score: 1", '{"verdict": "correct", "score": 1.0}', "yes", ""],
)
def test_a_response_without_the_number_cannot_be_right(response: str) -> None:
    assert not may_be_right("25", response)
