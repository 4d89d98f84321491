import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosetting.core.artifacts import draw_seed
from prosetting.datasets.dpo_data_converter import is_validation, pairs_of_question
from prosetting.records import REFERENCE_ATTEMPT, Grade, QuestionPairs, Trajectory, Verdict, question_id_of

Q = question_id_of("q")
CORRECT, INCORRECT, UNKNOWN = Verdict.CORRECT, Verdict.INCORRECT, Verdict.UNKNOWN


def graded(*attempts: tuple[str, Verdict], round_: int = 1):
    return [
        (Trajectory(round_, Q, number, text, "stop", 1), Grade(round_, Q, number, verdict, "rules"))
        for number, (text, verdict) in enumerate(attempts)
    ]


def texts(found: QuestionPairs | None) -> list[tuple[str, str]]:
    """Chosen and rejected text of each pair."""
    if found is None:
        return []
    return [(found.completions[c], found.completions[r]) for c, r in zip(found.chosen, found.rejected, strict=True)]


def pairs(attempts, most=None, shuffle=False, seed=1) -> list[tuple[str, str]]:
    return texts(pairs_of_question("p", attempts, run_seed=seed, most=most, shuffle_labels=shuffle))


def test_every_correct_attempt_is_paired_with_every_incorrect_one():
    found = pairs(graded(("a", CORRECT), ("b", INCORRECT), ("c", CORRECT), ("d", INCORRECT)))
    assert found == [("a", "b"), ("a", "d"), ("c", "b"), ("c", "d")]


def test_a_question_holds_each_completion_once_with_its_attempt_number():
    attempts = graded(("a", CORRECT), ("b", INCORRECT), ("c", CORRECT), ("d", INCORRECT), round_=3)
    found = pairs_of_question("p", attempts, run_seed=1, most=None, shuffle_labels=False)
    assert found == QuestionPairs(
        "p", Q, 3, ("a", "c", "b", "d"), (0, 2, 1, 3), chosen=(0, 0, 1, 1), rejected=(2, 3, 2, 3)
    )
    assert found.attempt_pairs == [(0, 1), (0, 3), (2, 1), (2, 3)]


def test_equal_texts_count_once():
    found = pairs_of_question(
        "p",
        graded(("a", CORRECT), ("a", CORRECT), ("b", INCORRECT), ("b", INCORRECT)),
        run_seed=1,
        most=None,
        shuffle_labels=False,
    )
    assert found is not None
    assert found.attempt_pairs == [(0, 2)]


def test_a_question_without_pairs_is_none():
    assert pairs_of_question("p", graded(("a", CORRECT)), run_seed=1, most=None, shuffle_labels=False) is None
    assert pairs_of_question("p", [], run_seed=1, most=None, shuffle_labels=True) is None


WORKED = "She has 2+3=<<2+3=5>>5 pens.\n#### 5"


def with_solution(attempts, solution):
    return pairs_of_question("p", attempts, run_seed=1, most=None, shuffle_labels=False, reference_solution=solution)


def test_the_worked_solution_of_a_question_that_nobody_solved_is_the_one_chosen_answer():
    found = with_solution(graded(("a", INCORRECT), ("b", INCORRECT), ("c", UNKNOWN)), WORKED)
    assert found is not None
    assert texts(found) == [("She has 2+3=5 pens.\n#### 5", "a"), ("She has 2+3=5 pens.\n#### 5", "b")]
    assert found.attempt_pairs == [(REFERENCE_ATTEMPT, 0), (REFERENCE_ATTEMPT, 1)]


@pytest.mark.parametrize("solution", [None, "", "5", "#### 5", "\\boxed{5}", "The answer is 5"])
def test_a_bare_answer_is_never_a_chosen_one(solution):
    assert not with_solution(graded(("a", INCORRECT)), solution)


def test_a_question_with_a_correct_attempt_is_not_taught_by_its_solution():
    found = with_solution(graded(("a", CORRECT), ("b", INCORRECT)), WORKED)
    assert texts(found) == [("a", "b")]


def test_an_unknown_attempt_is_neither_chosen_nor_rejected():
    assert not pairs(graded(("a", CORRECT), ("b", UNKNOWN)))
    assert not pairs(graded(("a", UNKNOWN), ("b", INCORRECT)))


def test_a_text_graded_both_ways_is_left_out():
    found = pairs(graded(("a", CORRECT), ("a", INCORRECT), ("b", CORRECT), ("c", INCORRECT)))
    assert found == [("b", "c")]


def test_the_cap_keeps_a_fixed_subset_of_all_pairs():
    attempts = graded(*[(f"c{n}", CORRECT) for n in range(4)], *[(f"w{n}", INCORRECT) for n in range(4)])
    capped = pairs(attempts, most=4)
    assert len(capped) == 4
    assert set(capped) < set(pairs(attempts))
    assert capped == sorted(capped) == pairs(attempts, most=4)


def test_the_cap_picks_by_the_hash_of_a_pair_s_name():
    attempts = graded(*[(f"c{n}", CORRECT) for n in range(4)], *[(f"w{n}", INCORRECT) for n in range(4)])
    every = [(c, r) for c in range(4) for r in range(4, 8)]
    first = sorted(every, key=lambda pair: draw_seed(5, "pair", 1, Q, *pair))[:4]
    assert pairs(attempts, most=4, seed=5) == [(f"c{c}", f"w{r - 4}") for c, r in sorted(first)]


def test_a_capped_question_holds_only_the_completions_of_its_pairs():
    attempts = graded(*[(f"c{n}", CORRECT) for n in range(4)], *[(f"w{n}", INCORRECT) for n in range(4)])
    found = pairs_of_question("p", attempts, run_seed=1, most=1, shuffle_labels=False)
    assert found is not None
    assert len(found.completions) == len(found.attempts) == 2


@given(st.lists(st.tuples(st.text(max_size=3), st.sampled_from(list(Verdict))), max_size=12), st.integers(0, 99))
def test_shuffled_labels_keep_the_number_of_pairs(attempts, seed):
    assert len(pairs(graded(*attempts), shuffle=True, seed=seed)) == len(pairs(graded(*attempts)))


def test_shuffled_labels_swap_chosen_and_rejected_for_some_seed():
    attempts = graded(("a", CORRECT), ("b", INCORRECT))
    chosen = {pairs(attempts, shuffle=True, seed=seed)[0][0] for seed in range(20)}
    assert chosen == {"a", "b"}


def test_about_a_tenth_of_questions_is_validation_and_stays_there():
    ids = [question_id_of(str(n)) for n in range(5000)]
    share = sum(map(is_validation, ids)) / len(ids)
    assert 0.08 < share < 0.12
    assert [is_validation(i) for i in ids] == [is_validation(i) for i in ids]
