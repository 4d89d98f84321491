"""The demo's rounds put together from stock parts, one stage after another, in one process. See five_seeds.py.

Each round is that of `benchmarks/stock_round.py`: plain `generate`, the product's rules, pairs, trl's DPOTrainer, new
questions through the plain openai client. Rounds are gathered, pools made and weights trained as the demo's settings
say, with the product's own pool policy; there is no journal, no resume, and no check of the teacher or of what it
writes. Weights go to OUT/checkpoints/merged_solver_rN.
"""

from __future__ import annotations

import argparse
import random
import sys
from contextlib import nullcontext
from pathlib import Path

import datasets
from transformers import set_seed

from prosetting.collectors.data_normalizer import load_questions
from prosetting.demo.recipe import RUN_SETTINGS
from prosetting.managers.pool_policy import POOL_POLICIES, Candidates
from prosetting.records import Question, QuestionId, Verdict, question_id_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from served_teacher import WORKERS, served_teacher
from stock_round import Graded, Policy, Teacher, enhance, grade, pairs, train

PROMPTS_A_BATCH = int(RUN_SETTINGS["SOLVER_BATCH_SIZE"]) // int(RUN_SETTINGS["ATTEMPTS_PER_QUESTION"])
NEW_QUESTIONS = int(RUN_SETTINGS["NEW_QUESTIONS_PER_ROUND"])
Questions = dict[QuestionId, Question]


def at_most(rows: datasets.Dataset, most: int | None, rng: random.Random) -> datasets.Dataset:
    """A question's pairs, `most` of them."""
    if most is None or not len(rows):
        return rows
    by_prompt: dict[str, list[int]] = {}
    for index, prompt in enumerate(rows["prompt"]):
        by_prompt.setdefault(prompt[0]["content"], []).append(index)
    kept = [i for indices in by_prompt.values() for i in rng.sample(indices, min(most, len(indices)))]
    return rows.select(sorted(kept))


def together(found: list[datasets.Dataset]) -> datasets.Dataset:
    """Of several rounds; one without a row has no columns either."""
    return datasets.concatenate_datasets([rows for rows in found if len(rows)] or found[:1])


def next_pool(
    questions: Questions, graded: dict[QuestionId, Graded], written: list[dict[str, str]], rng: random.Random
) -> Questions:
    new = {}
    for row in written:
        id_ = question_id_of(row["question"])
        new[id_] = Question(id_, row["question"], row["answer"])
    failed: list[QuestionId] = []
    others: list[QuestionId] = []
    for id_ in rng.sample(sorted(questions), len(questions)):
        wrong = any(found.verdict is Verdict.INCORRECT for _, found in graded[id_])
        (failed if wrong else others).append(id_)
    found = Candidates(sorted(new), failed, others, 1.0, float(RUN_SETTINGS["REPLAY_OTHER_SHARE"]))
    all_known = {**questions, **new}
    return {id_: all_known[id_] for id_, _ in POOL_POLICIES["replay"].choose(found)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--teacher", help="its base URL; unless given, one of its own is started")
    parser.add_argument("--first-training-round", type=int, default=int(RUN_SETTINGS["FIRST_TRAINING_ROUND"]))
    parser.add_argument("--max-pairs", type=int, default=None, help="of a question; all unless given")
    parser.add_argument("--pairs-an-update", type=int, default=16)
    given = parser.parse_args()
    (given.out / "checkpoints").mkdir(parents=True, exist_ok=True)
    set_seed(given.seed)
    rng = random.Random(given.seed)
    policy = Policy(given.model)
    questions: Questions = {question.question_id: question for question in load_questions(given.questions)}
    gathered: dict[str, list[datasets.Dataset]] = {"train": [], "validation": []}
    with nullcontext(given.teacher) if given.teacher else served_teacher() as base_url:
        for round_ in range(1, 1000):
            graded = grade(
                questions, policy.sample(list(questions.values()), PROMPTS_A_BATCH), Teacher(base_url, WORKERS)
            )
            for side, rows in pairs(questions, graded).items():
                gathered[side].append(at_most(rows, given.max_pairs, rng))
            if round_ >= given.first_training_round:
                data = {side: together(found) for side, found in gathered.items()}
                gathered = {"train": [], "validation": []}
                work = given.out / f"training_{round_}"
                train(policy, data, given.pairs_an_update, given.seed + round_, work)
                folder = (work / "solver").rename(given.out / "checkpoints" / f"merged_solver_r{round_}")
                policy = Policy(folder)
            asked = dict(rng.sample(sorted(questions.items()), min(NEW_QUESTIONS, len(questions))))
            written = enhance(asked, graded, given.seed + round_, Teacher(base_url, WORKERS))
            questions = next_pool(questions, graded, written, rng)
            print(f"round {round_}: {len(written)} new questions, next pool {len(questions)}", flush=True)


if __name__ == "__main__":
    main()
