"""What a round costs past one machine, and what breaks first: a calculation, not a measurement.

    python benchmarks/scaling_model.py                         the tables of docs/scaling.md
    python benchmarks/scaling_model.py --completion 4000 --teacher-share 1 --gpu-tflops 400

What the project itself measured (benchmarks/results.jsonl) is read from there. What depends on a GPU, a network or a
teacher was not measured: it is an assumption, named with its source in `Assumed`, and each one is a flag.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

RESULTS = Path(__file__).with_name("results.jsonl")
MODELS = {"8B": 8.2e9, "32B": 32.8e9}
QUESTIONS = (10_000, 100_000, 1_000_000, 10_000_000)
GPUS = (8, 64, 256, 1024)
GPUS_A_NODE = 8
ATTEMPTS = 8
HOUR, GB, TB = 3600.0, 1e9, 1e12


def _assumed(default: float, meaning: str) -> float:
    return field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True)
class Assumed:
    """Not measured here. Each is a flag of the same name."""

    prompt: float = _assumed(200, "tokens of a question")
    completion: float = _assumed(1000, "tokens of an attempt; reasoning models write 4,000 and more")
    characters: float = _assumed(4, "characters a token, English text and formulas")
    mixed_share: float = _assumed(0.5, "share of the questions with right and wrong attempts: the others make no pairs")
    gpu_tflops: float = _assumed(989, "peak of a GPU in bf16, TFLOP/s (NVIDIA H100 SXM data sheet, dense)")
    gpu_gb: float = _assumed(80, "memory of a GPU, GB (the same)")
    training_use: float = _assumed(0.38, "share of the peak in training (Llama 3, arXiv 2407.21783: .38 to .43)")
    sampling_use: float = _assumed(0.12, "share of the peak in sampling; put your server's figure here")
    teacher_share: float = _assumed(0.1, "share of the attempts that rules do not decide; 1 without references")
    teacher2_share: float = _assumed(0.5, "new questions for each question of the pool")
    teacher2_calls: float = _assumed(4, "calls a new question: analysis, writing, two answers")
    teacher_tokens: float = _assumed(1800, "tokens of a call, both ways")
    teacher_seconds: float = _assumed(5, "latency of a call")
    teacher_calls: float = _assumed(256, "calls in flight, both teachers together")
    disk_gbps: float = _assumed(2, "GB/s of the workspace's disk (one NVMe drive)")
    network_gbps: float = _assumed(3, "GB/s between nodes (25 Gbit/s)")


@dataclass(frozen=True)
class Measured:
    """From benchmarks/results.jsonl, on 2 cores; below, what is measured by hand, with how."""

    controller_ms: float
    """CPU of the controller a question: 2 attempts, one teacher call in eight questions (cost_per_question)."""
    controller_bytes: float
    """Memory of the controller a question of a round (the same)."""
    attempt_ms: float
    """Writing an attempt and its verdict to the journal, in batches of 64 (journal_scale)."""
    resume_us: float
    """Going on with a round, an attempt of that round (journal_scale, one single round of a million)."""
    pairs_a_second: float
    """Pairs to parquet a CPU second (pairs_parquet)."""
    parquet_share: float
    """Size of both parquet files over that of the attempts in them (pairs_parquet, its made-up texts)."""
    call_ms: float = 2.0
    """CPU of the controller a teacher call: 1.3 to 2 ms in whole_round (docs/performance.md)."""
    journal_bytes: float = 250
    """Journal, an attempt with its verdict, beside its text: 32,000 attempts of 400 and of 4,000 characters."""
    journal_share: float = 1.15
    """Journal bytes a character of an attempt (the same)."""
    sha256_gbps: float = 1.4
    """One thread that seals a checkpoint, GB/s: `hashlib.sha256` of 64 MB."""


def measured(results: Path = RESULTS) -> Measured:
    found = {entry["script"]: entry.get("result", {}) for entry in map(json.loads, results.open(encoding="utf-8"))}
    costs, journal, pairs = found["cost_per_question"], found["journal_scale"], found["pairs_parquet"]
    memory = costs["peak_mb"]
    return Measured(
        controller_ms=costs["cost_ms"]["100000"],
        controller_bytes=(memory["100000"] - memory["1000"]) * 1e6 / 99_000,
        attempt_ms=journal["cost_ms"][-1],
        resume_us=journal["single_round_s"],  # of a million attempts: seconds are microseconds an attempt
        pairs_a_second=pairs["value"][0],
        parquet_share=pairs["size_mb"] / (100_000 * ATTEMPTS * 300 / 1e6),
    )


@dataclass(frozen=True)
class Round:
    """One round with all weights trained under FSDP2: `parameters`, `questions`, `gpus` for sampling, then training."""

    parameters: float
    questions: int
    gpus: int
    a: Assumed
    m: Measured

    @property
    def attempts(self) -> int:
        return self.questions * ATTEMPTS

    @property
    def sampled_tokens(self) -> float:
        return self.attempts * self.a.completion

    @property
    def trained_tokens(self) -> float:
        """Each prompt once, each attempt once (the grouped engine); stock TRL: 2k(n − k) whole rows."""
        return self.questions * self.a.mixed_share * (self.a.prompt + ATTEMPTS * self.a.completion)

    @property
    def sampling_gpu_hours(self) -> float:
        tokens = self.sampled_tokens + self.questions * self.a.prompt
        return 2 * self.parameters * tokens / (self.a.gpu_tflops * 1e12 * self.a.sampling_use) / HOUR

    @property
    def training_gpu_hours(self) -> float:
        """Reference 2, forward 2, recomputed forward 2, backward 4 operations a parameter and token."""
        work = 10 * self.parameters * self.trained_tokens
        return work / (self.a.gpu_tflops * 1e12 * self.a.training_use) / HOUR

    @property
    def calls(self) -> float:
        return self.attempts * self.a.teacher_share + self.questions * self.a.teacher2_share * self.a.teacher2_calls

    @property
    def pairs(self) -> float:
        """At k = n/2; fewer for other k."""
        return self.questions * self.a.mixed_share * (ATTEMPTS // 2) ** 2

    @property
    def text_bytes(self) -> float:
        return self.sampled_tokens * self.a.characters

    @property
    def journal_bytes(self) -> float:
        return self.attempts * self.m.journal_bytes + self.text_bytes * self.m.journal_share

    @property
    def storage_bytes(self) -> float:
        """Journal, the round's JSON files (attempts once more), parquet, and the weights in float32."""
        return (
            self.journal_bytes + self.text_bytes * (1 + self.a.mixed_share * self.m.parquet_share) + 4 * self.parameters
        )

    @property
    def nodes(self) -> int:
        return math.ceil(self.gpus / GPUS_A_NODE)

    def hours(self) -> dict[str, float]:
        """How long each part of the system is busy in the round. GPUs sample, then train; all else runs beside them."""
        controller_ms = self.questions * self.m.controller_ms + self.calls * self.m.call_ms
        controller_ms += self.attempts * self.m.attempt_ms
        checkpoint = 12 * self.parameters  # weights and two AdamW moments in float32, sealed by one thread
        return {
            "GPUs": (self.sampling_gpu_hours + self.training_gpu_hours) / self.gpus,
            "controller thread": controller_ms / 1e3 / HOUR,
            "teacher": self.calls * self.a.teacher_seconds / self.a.teacher_calls / HOUR,
            "pairs to parquet": self.pairs / self.m.pairs_a_second / HOUR,
            "disk": (self.storage_bytes + 2 * checkpoint) / GB / self.a.disk_gbps / HOUR,
            "seals": 4 * checkpoint / GB / self.m.sha256_gbps / HOUR,
            "weights to nodes": 4 * self.parameters * self.nodes / GB / self.a.network_gbps / HOUR,
        }


def rows(header: str, *lines: str) -> str:
    return "\n".join([header, "|" + "---|" * (header.count("|") - 1), *lines]) + "\n"


def shown(number: float) -> str:
    """Two digits, as people say it: 0.4, 31, 5,100, 2.2 M, 1.6 G."""
    for size, word in ((1e12, " T"), (1e9, " G"), (1e6, " M")):
        if number >= size:
            return f"{number / size:.2g}{word}" if number < 100 * size else f"{number / size:.0f}{word}"
    digits = 0 if number == 0 else 1 - math.floor(math.log10(abs(number)))
    return f"{round(number, digits):,.{max(digits, 0)}f}"


def costs(a: Assumed, m: Measured) -> str:
    def lines() -> Iterator[str]:
        for name, parameters in MODELS.items():
            for questions in QUESTIONS:
                r = Round(parameters, questions, GPUS_A_NODE, a, m)
                cells = [name, f"{questions:,}", shown(r.sampled_tokens), shown(r.trained_tokens)]
                cells += [shown(r.sampling_gpu_hours), shown(r.training_gpu_hours), shown(r.calls)]
                cells += [shown(r.calls * a.teacher_tokens), shown(r.storage_bytes / TB), shown(4 * parameters / GB)]
                yield f"| {' | '.join(cells)} |"

    return rows(
        "| Solver | Questions | Tokens sampled | Tokens trained on | GPU h sampling | GPU h training | Teacher calls |"
        " Teacher tokens | Storage, TB | Weights to each node, GB |",
        *lines(),
    )


def what_breaks(a: Assumed, m: Measured) -> str:
    def lines() -> Iterator[str]:
        for name, parameters in MODELS.items():
            for questions in QUESTIONS:
                cells = [name, f"{questions:,}"]
                for gpus in GPUS:
                    hours = Round(parameters, questions, gpus, a, m).hours()
                    slowest = max(hours, key=lambda part: hours[part])
                    cells.append(f"{shown(hours['GPUs'])} h; {slowest}" + f" {shown(hours[slowest])} h")
                yield f"| {' | '.join(cells).replace('; GPUs', '; **GPUs**')} |"

    return rows("| Solver | Questions | " + " | ".join(f"{gpus:,} GPUs" for gpus in GPUS) + " |", *lines())


def busy(a: Assumed, m: Measured) -> str:
    """All parts of one round, the largest that is asked about most."""
    r = Round(MODELS["8B"], 1_000_000, 256, a, m)
    lines = [f"| {part} | {shown(hours)} |" for part, hours in sorted(r.hours().items(), key=lambda item: -item[1])]
    return rows("| 8B, 1,000,000 questions, 256 GPUs | Hours busy |", *lines)


def controller(a: Assumed, m: Measured) -> str:
    """What one thread with one journal comes to, whatever the Solver."""

    def lines() -> Iterator[str]:
        for questions in QUESTIONS:
            r = Round(MODELS["8B"], questions, GPUS_A_NODE, a, m)
            own, calls = questions * m.controller_ms / 1e3, r.calls * m.call_ms / 1e3
            writing, resume = r.attempts * m.attempt_ms / 1e3, r.attempts * m.resume_us / 1e6
            cells = [f"{questions:,}", *(shown(seconds / 60) for seconds in (own, calls, writing, resume))]
            cells += [shown((0.19e9 + questions * m.controller_bytes) / GB), shown(r.journal_bytes / GB)]
            yield f"| {' | '.join(cells)} |"

    return rows(
        "| Questions a round | Own work, min | Teacher calls, min | Writing attempts, min |"
        " Going on after a stop, min | Memory, GB | Journal a round, GB |",
        *lines(),
    )


def memory(a: Assumed) -> str:
    def lines() -> Iterator[str]:
        for name, parameters in MODELS.items():
            states, frozen = 16 * parameters / GB, 4 * parameters / GB
            least = math.ceil(states / (0.7 * a.gpu_gb))
            host = 8 * parameters * GPUS_A_NODE / GB
            cells = [name, shown(states), str(least), shown(frozen), shown(12 * parameters / GB), shown(host)]
            yield f"| {' | '.join(cells)} |"

    return rows(
        "| Solver | Weights, gradients, AdamW in float32, GB | GPUs to share them (70 % of memory) |"
        " LoRA: frozen weights, GB | A checkpoint, GB | Host memory of a node of 8 while loading, GB |",
        *lines(),
    )


def page(a: Assumed, m: Measured) -> str:
    """The tables, as they stand in docs/scaling.md."""
    of_project = [f"| {name} | {shown(getattr(m, name))} |" for name in (part.name for part in fields(m))]
    assumed = [f"| `--{part.name.replace('_', '-')}` | {getattr(a, part.name):g} | {part.metadata['meaning']} |"
               for part in fields(a)]  # fmt: skip
    parts = {
        "A round": costs(a, m),
        "What breaks first": what_breaks(a, m),
        "Where the hours go": busy(a, m),
        "The controller": controller(a, m),
        "Memory": memory(a),
        "Measured": rows("| Constant of `Measured` | Value |", *of_project),
        "Assumed": rows("| Flag | Value | Meaning and source |", *assumed),
    }
    return "\n".join(f"### {title}\n\n{table}" for title, table in parts.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for part in fields(Assumed):
        flag = "--" + part.name.replace("_", "-")
        parser.add_argument(flag, type=float, default=part.default, help=f"{part.metadata['meaning']} (%(default)g)")
    print(page(replace(Assumed(), **vars(parser.parse_args())), measured()), end="")


if __name__ == "__main__":
    main()
