from __future__ import annotations

import pytest

from prosetting.processors.answer_extraction import carries_no_number, extract, reference_answer, says_nothing


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


@pytest.mark.parametrize("response", ["", " \n", ":", "$$", "Solution:", "Thought process:", "The answer is:", "####"])
def test_a_response_without_content_says_nothing(response: str) -> None:
    assert says_nothing(response, "18")


def test_a_word_that_is_the_expected_answer_says_something() -> None:
    assert not says_nothing("undefined", r"\text{undefined}")


def test_words_marks_and_digits_of_any_script_can_carry_a_number() -> None:
    assert carries_no_number("The attempt has been verified as correct.")
    assert not carries_no_number("seventeen")
    assert not carries_no_number("١٨")
    assert not carries_no_number(r"\boxed{\pi}")
