"""TRL's GRPOTrainer on a question file, until it is stopped. See five_seeds.py.

The reward is 1 where the product's own rules hold an attempt's answer to be the reference, else 0; a question without a
reference gets its answer by solving it. Attempts are drawn by transformers, eight a question. Weights go to
OUT/checkpoints/step_N every few steps; the learning rate is constant, since the time decides when it ends.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import datasets
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from prosetting.collectors.data_normalizer import load_questions
from prosetting.demo.recipe import RUN_SETTINGS
from prosetting.processors.answer_verifier import AnswerVerifier
from prosetting.records import Verdict
from prosetting.teachers.arithmetic import parse, solve

ATTEMPTS = int(RUN_SETTINGS["ATTEMPTS_PER_QUESTION"])


class KeepWeights(TrainerCallback):  # type: ignore[misc]
    """Save model and tokenizer every `steps` steps, each folder whole or not there."""

    def __init__(self, out: Path, steps: int, tokenizer: Any) -> None:
        self._out, self._steps, self._tokenizer = out, steps, tokenizer
        self._out.mkdir(parents=True, exist_ok=True)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step % self._steps == 0:
            partial = self._out / "partial"
            model.save_pretrained(partial)
            self._tokenizer.save_pretrained(partial)
            partial.rename(self._out / f"step_{state.global_step}")


def rows_of(file: Path) -> datasets.Dataset:
    rows = []
    for question in load_questions(file):
        reference = question.reference
        if reference is None:
            problem = parse(question.text)
            assert problem is not None, f"not of the demo's family: {question.text}"
            reference = str(solve(problem))
        prompt = [{"role": "user", "content": question.text}]
        rows.append({"prompt": prompt, "question": question.text, "reference": reference})
    return datasets.Dataset.from_list(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--questions-a-step", type=int, required=True)
    parser.add_argument("--beta", type=float, required=True)
    parser.add_argument("--updates-a-sample", type=int, default=1, help="GRPO's μ")
    parser.add_argument("--max-steps", type=int, default=100_000)
    given = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(given.model, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(given.model, dtype="float32")
    arguments = GRPOConfig(
        output_dir=str(given.out / "trainer"),
        learning_rate=given.learning_rate,
        lr_scheduler_type="constant",
        max_steps=given.max_steps,
        per_device_train_batch_size=given.questions_a_step * ATTEMPTS,
        num_generations=ATTEMPTS,
        num_iterations=given.updates_a_sample,
        max_completion_length=int(RUN_SETTINGS["SOLVER_MAX_NEW_TOKENS"]),
        temperature=float(RUN_SETTINGS["SOLVER_TEMPERATURE"]),
        beta=given.beta,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        seed=given.seed,
        save_strategy="no",
        logging_steps=5,
        report_to="none",
    )
    with AnswerVerifier() as verifier:

        def reward(completions: list[Any], question: list[str], reference: list[str], **_: Any) -> list[float]:
            texts = [completion[0]["content"] for completion in completions]
            asked = zip(question, reference, texts, strict=True)
            return [float(verifier.verify(q, r, text).verdict is Verdict.CORRECT) for q, r, text in asked]

        GRPOTrainer(
            model=model,
            reward_funcs=reward,
            args=arguments,
            train_dataset=rows_of(given.questions),
            processing_class=tokenizer,
            callbacks=[KeepWeights(given.out / "checkpoints", max(1, 64 // given.questions_a_step), tokenizer)],
        ).train()


if __name__ == "__main__":
    main()
