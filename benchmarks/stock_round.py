"""A round of self-training as one would put it together from stock parts, one stage after another. See whole_round.py.

    1  transformers' `generate(num_return_sequences=8)`, prompts sorted by length
    2  grading: the product's rules, so that both sides grade alike; what they leave open goes to the teacher through
       the plain openai client
    3  every correct × incorrect pair of a question, equal texts once, as a datasets.Dataset
    4  trl.DPOTrainer on it, then its evaluation on the validation pairs
    5  new questions from the teacher: the product's own choice of attempts and its prompts

No journal, no files between stages, no resume, no check of the teacher or of what it writes.
`python benchmarks/stock_round.py --help` says what it is given; the last line of its output is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable
from itertools import product
from pathlib import Path
from typing import Any, Literal

import datasets
import torch
from openai import AsyncOpenAI
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import DPOConfig, DPOTrainer

from prosetting.collectors.data_normalizer import load_questions
from prosetting.datasets.dpo_data_converter import is_validation
from prosetting.demo.recipe import RUN_SETTINGS
from prosetting.processors.answer_extraction import holds_no_answer
from prosetting.processors.answer_verifier import AnswerVerifier
from prosetting.processors.curriculum import zones
from prosetting.processors.question_enhancer import plan_enhancement
from prosetting.records import Grade, Question, QuestionId, Trajectory, Verdict
from prosetting.teachers.embedded_teacher import MODEL
from prosetting.teachers.prompts import Prompt, analyse_prompt, enhance_prompt, grade_prompt, solve_prompt

ATTEMPTS = int(RUN_SETTINGS["ATTEMPTS_PER_QUESTION"])
Graded = list[tuple[Trajectory, Grade]]
"""One question's attempts with their verdicts."""


class Policy:
    """The Solver and its tokenizer."""

    def __init__(self, path: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)

    @torch.no_grad()
    def sample(self, questions: list[Question], prompts_a_batch: int) -> list[Trajectory]:
        """ATTEMPTS attempts at each question, drawn as the demo's settings say."""
        ordered = sorted(questions, key=lambda question: len(question.text))
        found = []
        for start in range(0, len(ordered), prompts_a_batch):
            batch = ordered[start : start + prompts_a_batch]
            turns = [[{"role": "user", "content": question.text}] for question in batch]
            inputs = self.tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
            )
            drawn = self.model.generate(
                **inputs,
                do_sample=True,
                temperature=float(RUN_SETTINGS["SOLVER_TEMPERATURE"]),
                top_k=0,
                max_new_tokens=int(RUN_SETTINGS["SOLVER_MAX_NEW_TOKENS"]),
                num_return_sequences=ATTEMPTS,
                pad_token_id=self.tokenizer.pad_token_id,
            )[:, inputs["input_ids"].shape[1] :]
            texts = self.tokenizer.batch_decode(drawn, skip_special_tokens=True)
            for row, (question, attempt) in enumerate(product(batch, range(ATTEMPTS))):
                ended = bool((drawn[row] == self.tokenizer.eos_token_id).any())
                finish: Literal["stop", "length"] = "stop" if ended else "length"
                found.append(Trajectory(1, question.question_id, attempt, texts[row], finish, 0))
        return found


def best_batch(policy: Policy, questions: list[Question]) -> int:
    """Prompts a batch with which a sample of the questions is drawn fastest."""
    sample = questions[:: max(1, len(questions) // 256)]
    seconds = {}
    for prompts_a_batch in (16, 32, 64, 128, 256):
        started = time.perf_counter()
        policy.sample(sample, prompts_a_batch)
        seconds[prompts_a_batch] = time.perf_counter() - started
    return min(seconds, key=lambda size: seconds[size])


class Teacher:
    """The plain openai client, `workers` calls at a time."""

    def __init__(self, base_url: str, workers: int) -> None:
        self.calls = 0
        self._client = AsyncOpenAI(base_url=base_url, api_key="none")
        self._places = asyncio.Semaphore(workers)

    async def ask(self, prompt: Prompt) -> dict[str, Any]:
        self.calls += 1
        async with self._places:
            done = await self._client.chat.completions.create(model=MODEL, messages=prompt.messages)  # type: ignore[arg-type]
        reply: dict[str, Any] = json.loads(done.choices[0].message.content or "")
        return reply

    async def ask_all(self, work: Iterable[Awaitable[None]]) -> None:
        async with self._client:
            await asyncio.gather(*work)


def grade(questions: dict[QuestionId, Question], drawn: list[Trajectory], teacher: Teacher) -> dict[QuestionId, Graded]:
    """Rules first, then the teacher for what they leave open."""
    verdicts: list[Verdict] = []
    with AnswerVerifier() as verifier:
        verdicts = [_by_rules(verifier, questions[attempt.question_id], attempt) for attempt in drawn]

    async def ask(index: int) -> None:
        attempt = drawn[index]
        reply = await teacher.ask(grade_prompt(questions[attempt.question_id], attempt.response))
        verdicts[index] = Verdict(reply["verdict"])

    asyncio.run(teacher.ask_all(ask(n) for n, verdict in enumerate(verdicts) if verdict is Verdict.UNKNOWN))
    graded: dict[QuestionId, Graded] = {id_: [] for id_ in questions}
    for attempt, verdict in zip(drawn, verdicts, strict=True):
        graded[attempt.question_id].append((attempt, Grade(1, attempt.question_id, attempt.attempt, verdict, "rules")))
    return graded


def _by_rules(verifier: AnswerVerifier, question: Question, attempt: Trajectory) -> Verdict:
    if question.reference is not None:
        cut_off = attempt.finish_reason == "length"
        return verifier.verify(question.text, question.reference, attempt.response, cut_off=cut_off).verdict
    return Verdict.INCORRECT if holds_no_answer(attempt.response) else Verdict.UNKNOWN


def pairs(questions: dict[QuestionId, Question], graded: dict[QuestionId, Graded]) -> dict[str, datasets.Dataset]:
    """Conversational rows as trl takes them, split by question as the product does."""
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "validation": []}
    for id_, attempts in graded.items():
        sides = [
            dict.fromkeys(attempt.response for attempt, grade in attempts if grade.verdict is verdict)
            for verdict in (Verdict.CORRECT, Verdict.INCORRECT)
        ]
        rows["validation" if is_validation(id_) else "train"] += [
            {
                "prompt": [{"role": "user", "content": questions[id_].text}],
                "chosen": [{"role": "assistant", "content": good}],
                "rejected": [{"role": "assistant", "content": bad}],
            }
            for good, bad in product(*sides)
        ]
    return {side: datasets.Dataset.from_list(found) for side, found in rows.items()}


def train(policy: Policy, data: dict[str, datasets.Dataset], pairs_an_update: int, seed: int, folder: Path) -> int:
    """One epoch with the demo's hyper-parameters; the number of updates."""
    s = RUN_SETTINGS
    arguments = DPOConfig(
        output_dir=str(folder),
        learning_rate=float(s["TRL_LEARNING_RATE"]),
        lr_scheduler_type=s["TRL_LR_SCHEDULER"],
        num_train_epochs=float(s["TRL_NUM_EPOCHS"]),
        per_device_train_batch_size=pairs_an_update,
        per_device_eval_batch_size=pairs_an_update,
        beta=float(s["TRL_BETA"]),
        loss_type=s["TRL_LOSS_TYPE"].split(","),
        loss_weights=[float(weight) for weight in s["TRL_LOSS_WEIGHTS"].split(",")],
        max_length=int(s["TRL_MAX_LENGTH"]),
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        save_strategy="no",
        report_to="none",
    )
    trainer = DPOTrainer(
        model=policy.model,
        args=arguments,
        train_dataset=data["train"],
        eval_dataset=data["validation"] if len(data["validation"]) else None,
        processing_class=policy.tokenizer,
    )
    trainer.train()
    if len(data["validation"]):
        trainer.evaluate()
    trainer.save_model(str(folder / "solver"))
    return int(trainer.state.global_step)


def enhance(
    questions: dict[QuestionId, Question], graded: dict[QuestionId, Graded], seed: int, teacher: Teacher
) -> list[dict[str, Any]]:
    """For each question: what goes wrong in an attempt, a new question from it, the teacher's own answer to that."""
    written: list[dict[str, Any]] = []

    async def ask(id_: QuestionId) -> None:
        decided = [grade.verdict is Verdict.CORRECT for _, grade in graded[id_] if grade.verdict is not Verdict.UNKNOWN]
        rate = sum(decided) / len(decided) if decided else 0.0
        kind = zones(rate, (0.0, 1.0))
        plan = plan_enhancement(questions[id_], graded[id_], rate, kind_for=lambda _: kind, run_seed=seed)
        if plan is None:
            return
        failed = plan.shown.verdict is Verdict.INCORRECT
        analysis = (await teacher.ask(analyse_prompt(plan.parent, plan.shown)))["analysis"] if failed else ""
        new = await teacher.ask(enhance_prompt(plan.parent, plan.shown, analysis, plan.kind))
        if new["question"]:
            written.append({**new, **await teacher.ask(solve_prompt(new["question"]))})

    asyncio.run(teacher.ask_all(map(ask, questions)))
    return written


def play(
    policy: Policy, questions: dict[QuestionId, Question], given: argparse.Namespace, seconds: dict[str, float]
) -> dict[str, Any]:
    """The round; `seconds` gets the time of each stage."""

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        found = work()
        seconds[stage] = round(time.perf_counter() - started, 2)
        return found

    judge, author = (Teacher(given.teacher, given.workers) for _ in range(2))
    drawn = timed("sample", lambda: policy.sample(list(questions.values()), given.prompts_a_batch))
    graded = timed("grade", lambda: grade(questions, drawn, judge))
    data = timed("pair", lambda: pairs(questions, graded))
    steps = timed("train", lambda: train(policy, data, given.pairs_an_update, given.seed, given.out))
    written = timed("enhance", lambda: enhance(questions, graded, given.seed, author))
    (given.out / "new_questions.json").write_text(json.dumps(written))
    decided = [verdict.verdict for attempts in graded.values() for _, verdict in attempts]
    return {
        "train_pairs": len(data["train"]),
        "validation_pairs": len(data["validation"]),
        "updates": steps,
        "correct": decided.count(Verdict.CORRECT),
        "attempts": len(decided),
        "teacher_calls": judge.calls + author.calls,
        "new_questions": len(written),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--questions", type=Path, required=True, help="a question file")
    parser.add_argument("--teacher", required=True, help="base URL")
    parser.add_argument("--workers", type=int, default=32, help="teacher calls in flight")
    parser.add_argument("--pairs-an-update", type=int, default=16)
    parser.add_argument("--prompts-a-batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--find-batch", action="store_true", help="only say with how many prompts a batch is fastest")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    set_seed(given.seed)
    policy = Policy(given.model)
    questions = {question.question_id: question for question in load_questions(given.questions)}
    if given.find_batch:
        print(json.dumps({"prompts_a_batch": best_batch(policy, list(questions.values()))}))
        return
    seconds: dict[str, float] = {}
    found = play(policy, questions, given, seconds)
    print(json.dumps({**found, "seconds": seconds}))


if __name__ == "__main__":
    main()
