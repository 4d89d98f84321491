"""The journal's tables, and the rows that are no nouns of the loop: stages, teacher calls, checks of the judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from prosetting.records import Question, Verdict

Split = Literal["train", "heldout"]
JudgeCheckKind = Literal["canary", "regraded"]

JOURNAL_VERSION = 5

# Statements stand apart by an empty line.
SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;

CREATE TABLE questions (
    question_id TEXT PRIMARY KEY, text TEXT NOT NULL, reference TEXT, solution TEXT,
    kind TEXT NOT NULL, parent_id TEXT
) STRICT;

CREATE TABLE pools (
    round INTEGER NOT NULL, question_id TEXT NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (round, question_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE question_index (
    question_id TEXT PRIMARY KEY, round INTEGER NOT NULL, template INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX question_index_by_template ON question_index (round, template);

CREATE TABLE question_grams (
    gram INTEGER NOT NULL, question_id TEXT NOT NULL, size INTEGER NOT NULL, PRIMARY KEY (gram, question_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE trajectories (
    split TEXT NOT NULL, round INTEGER NOT NULL, question_id TEXT NOT NULL, attempt INTEGER NOT NULL,
    response TEXT NOT NULL, finish_reason TEXT NOT NULL, completion_tokens INTEGER NOT NULL,
    PRIMARY KEY (split, round, question_id, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE grades (
    split TEXT NOT NULL, round INTEGER NOT NULL, question_id TEXT NOT NULL, attempt INTEGER NOT NULL,
    verdict TEXT NOT NULL, decided_by TEXT NOT NULL, diagnosis TEXT NOT NULL,
    PRIMARY KEY (split, round, question_id, attempt),
    FOREIGN KEY (split, round, question_id, attempt) REFERENCES trajectories
) STRICT, WITHOUT ROWID;

CREATE TABLE teacher_calls (
    request_hash TEXT PRIMARY KEY, task TEXT NOT NULL, endpoint TEXT NOT NULL, model TEXT NOT NULL,
    reply TEXT, failure TEXT NOT NULL, attempts INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    latency_s REAL NOT NULL, cost REAL, at REAL NOT NULL
) STRICT;

CREATE INDEX teacher_calls_by_time ON teacher_calls (at);

CREATE TABLE teacher_totals (
    calls INTEGER NOT NULL, attempts INTEGER NOT NULL, failed INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, cost REAL
) STRICT;

INSERT INTO teacher_totals VALUES (0, 0, 0, 0, 0, NULL);

CREATE TRIGGER teacher_call_is_new AFTER INSERT ON teacher_calls BEGIN
    UPDATE teacher_totals SET calls = calls + 1, attempts = attempts + NEW.attempts,
        failed = failed + (NEW.reply IS NULL), prompt_tokens = prompt_tokens + NEW.prompt_tokens,
        completion_tokens = completion_tokens + NEW.completion_tokens,
        cost = CASE WHEN NEW.cost IS NULL THEN cost ELSE coalesce(cost, 0) + NEW.cost END;
END;

CREATE TRIGGER teacher_call_goes_on AFTER UPDATE ON teacher_calls BEGIN
    UPDATE teacher_totals SET attempts = attempts + NEW.attempts - OLD.attempts,
        failed = failed + (NEW.reply IS NULL) - (OLD.reply IS NULL),
        prompt_tokens = prompt_tokens + NEW.prompt_tokens - OLD.prompt_tokens,
        completion_tokens = completion_tokens + NEW.completion_tokens - OLD.completion_tokens,
        cost = CASE WHEN NEW.cost IS NULL THEN cost ELSE coalesce(cost, 0) + NEW.cost - coalesce(OLD.cost, 0) END;
END;

CREATE TABLE judge_checks (
    split TEXT NOT NULL, round INTEGER NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL,
    expected TEXT NOT NULL, verdict TEXT NOT NULL, evidence TEXT NOT NULL, PRIMARY KEY (split, round, kind, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE enhancements (
    round INTEGER NOT NULL, question_id TEXT NOT NULL, outcome TEXT NOT NULL, admitted_id TEXT,
    PRIMARY KEY (round, question_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX enhancements_by_admitted ON enhancements (admitted_id) WHERE admitted_id IS NOT NULL;

CREATE INDEX admitted_by_round ON enhancements (round, admitted_id) WHERE admitted_id IS NOT NULL;

CREATE TABLE stages (
    round INTEGER NOT NULL, stage TEXT NOT NULL, inputs TEXT NOT NULL, output TEXT NOT NULL,
    seconds REAL NOT NULL, finished_at REAL NOT NULL, PRIMARY KEY (round, stage)
) STRICT;

CREATE TABLE spans (
    round INTEGER NOT NULL, name TEXT NOT NULL, began_at REAL NOT NULL, ended_at REAL NOT NULL, outcome TEXT NOT NULL,
    PRIMARY KEY (round, name, began_at)
) STRICT, WITHOUT ROWID;

CREATE TABLE failures (
    at REAL NOT NULL, round INTEGER NOT NULL, stage TEXT NOT NULL, message TEXT NOT NULL
) STRICT
"""


@dataclass(frozen=True, slots=True)
class StageRecord:
    """A stage that is done: what went in (content as digests), what came out, how long it took."""

    inputs: dict[str, Any]
    output: dict[str, Any]
    seconds: float
    finished_at: float


@dataclass(frozen=True, slots=True)
class Span:
    """When one session worked at a stage, or at Teacher2's questions (`WRITING`), which begin long before their stage.

    Times are seconds since the epoch. `outcome`: done, stopped, or failed.
    """

    round: int
    name: str
    began_at: float
    ended_at: float
    outcome: Literal["done", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class QuestionTally:
    """The sampled attempts of one question by verdict."""

    correct: int
    incorrect: int
    unknown: int


@dataclass(frozen=True, slots=True)
class CallFigures:
    """A teacher's calls for one task within some time. `latency_s_p50` and so on: percentiles of a request, its
    retries included."""

    task: str
    calls: int
    attempts: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    latency_s_p50: float
    latency_s_p95: float
    latency_s_p99: float


@dataclass(frozen=True, slots=True)
class AdmittedQuestion:
    """A question of Teacher2 that was let in, and what it was made from: the parent, the attempt shown, the outcome.

    `pass_rate` is the share of correct among the decided attempts of the next round, None without one.
    """

    question: Question
    parent_text: str
    attempt_text: str
    outcome: dict[str, Any]
    pass_rate: float | None


@dataclass(frozen=True, slots=True)
class TeacherCall:
    """One request to a teacher: what it cost, and its reply once there is a usable one.

    `attempts` counts HTTP calls. Tokens are those of all replies, also of unusable ones: they were paid for.
    `failure` says why there is no reply yet, empty with one. `cost` is None where no price is configured.
    """

    request_hash: str
    task: str
    endpoint: str
    model: str
    reply: str | None
    failure: str
    attempts: int
    prompt_tokens: int
    completion_tokens: int
    latency_s: float
    cost: float | None


@dataclass(frozen=True, slots=True)
class JudgeCheckRow:
    """What Teacher1 said of an attempt whose verdict is known."""

    kind: JudgeCheckKind
    name: str
    expected: Verdict
    verdict: Verdict

    @property
    def passed(self) -> bool:
        return self.verdict is self.expected

    @property
    def failed(self) -> bool:
        """The opposite of what is right; `unknown` is neither passed nor failed."""
        return self.verdict not in (self.expected, Verdict.UNKNOWN)


@dataclass(frozen=True, slots=True)
class TeacherTotals:
    """`calls` counts requests, `attempts` HTTP calls; `failed` requests have no usable reply yet."""

    calls: int
    attempts: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
