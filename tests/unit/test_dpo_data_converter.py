import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosetting.datasets.dpo_data_converter import is_validation, pairs_of_question
from prosetting.records import REFERENCE_ATTEMPT, Grade, Trajectory, Verdict, question_id_of

Q = question_id_of("q")
CORRECT, INCORRECT, UNKNOWN = Verdict.CORRECT, Verdict.INCORRECT, Verdict.UNKNOWN


def graded(*attempts: tuple[str, Verdict], round_: int = 1):
    return [
        (Trajectory(round_, Q, number, text, "stop", 1), Grade(round_, Q, number, verdict, "rules"))
        for number, (text, verdict) in enumerate(attempts)
    ]


def pairs(attempts, most=None, shuffle=False, seed=1):
    return pairs_of_question("p", attempts, run_seed=seed, most=most, shuffle_labels=shuffle)


def test_every_correct_attempt_is_paired_with_every_incorrect_one():
    found = pairs(graded(("a", CORRECT), ("b", INCORRECT), ("c", CORRECT), ("d", INCORRECT)))
    assert [(p.chosen, p.rejected) for p in found] == [("a", "b"), ("a", "d"), ("c", "b"), ("c", "d")]


def test_equal_texts_count_once():
    found = pairs(graded(("a", CORRECT), ("a", CORRECT), ("b", INCORRECT), ("b", INCORRECT)))
    assert [(p.chosen_attempt, p.rejected_attempt) for p in found] == [(0, 2)]


WORKED = "She has 2+3=<<2+3=5>>5 pens.\n#### 5"


def with_solution(attempts, solution):
    return pairs_of_question("p", attempts, run_seed=1, most=None, shuffle_labels=False, reference_solution=solution)


def test_the_worked_solution_of_a_question_that_nobody_solved_is_the_one_chosen_answer():
    found = with_solution(graded(("a", INCORRECT), ("b", INCORRECT), ("c", UNKNOWN)), WORKED)
    assert [(p.chosen, p.chosen_attempt, p.rejected) for p in found] == [
        ("She has 2+3=5 pens.\n#### 5", REFERENCE_ATTEMPT, "a"),
        ("She has 2+3=5 pens.\n#### 5", REFERENCE_ATTEMPT, "b"),
    ]


@pytest.mark.parametrize("solution", [None, "", "5", "#### 5", "\\boxed{5}", "The answer is 5"])
def test_a_bare_answer_is_never_a_chosen_one(solution):
    assert not with_solution(graded(("a", INCORRECT)), solution)


def test_a_question_with_a_correct_attempt_is_not_taught_by_its_solution():
    found = with_solution(graded(("a", CORRECT), ("b", INCORRECT)), WORKED)
    assert [p.chosen for p in found] == ["a"]


def test_an_unknown_attempt_is_neither_chosen_nor_rejected():
    assert not pairs(graded(("a", CORRECT), ("b", UNKNOWN)))
    assert not pairs(graded(("a", UNKNOWN), ("b", INCORRECT)))


def test_a_text_graded_both_ways_is_left_out():
    found = pairs(graded(("a", CORRECT), ("a", INCORRECT), ("b", CORRECT), ("c", INCORRECT)))
    assert [(p.chosen, p.rejected) for p in found] == [("b", "c")]


def test_the_cap_keeps_a_fixed_subset_of_all_pairs():
    attempts = graded(*[(f"c{n}", CORRECT) for n in range(4)], *[(f"w{n}", INCORRECT) for n in range(4)])
    capped = pairs(attempts, most=4)
    assert len(capped) == 4
    assert set(capped) < set(pairs(attempts))
    assert capped == pairs(list(reversed(list(reversed(attempts)))), most=4)


@given(st.lists(st.tuples(st.text(max_size=3), st.sampled_from(list(Verdict))), max_size=12), st.integers(0, 99))
def test_shuffled_labels_keep_the_number_of_pairs(attempts, seed):
    assert len(pairs(graded(*attempts), shuffle=True, seed=seed)) == len(pairs(graded(*attempts)))


def test_shuffled_labels_swap_chosen_and_rejected_for_some_seed():
    attempts = graded(("a", CORRECT), ("b", INCORRECT))
    chosen = {pairs(attempts, shuffle=True, seed=seed)[0].chosen for seed in range(20)}
    assert chosen == {"a", "b"}


def test_about_a_tenth_of_questions_is_validation_and_stays_there():
    ids = [question_id_of(str(n)) for n in range(5000)]
    share = sum(map(is_validation, ids)) / len(ids)
    assert 0.08 < share < 0.12
    assert [is_validation(i) for i in ids] == [is_validation(i) for i in ids]
