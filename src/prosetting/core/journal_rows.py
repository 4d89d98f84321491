"""The journal's tables, and the rows that are no nouns of the loop: stages, teacher calls, checks of the judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from prosetting.records import PoolReason, Question, QuestionId, Verdict

Split = Literal["train", "heldout", "reported", "generator", "trial"]
"""Three kinds of questions that never mix: trained on, looked at between rounds, and scored at the end. Attempts of the
fourth are what the Generator wrote as the next question after `question_id`; they have no verdict. Those of the
fifth are the Solver's at such drafts, which are named as in `managers/generator_drafts.py`."""
JudgeCheckKind = Literal["canary", "regraded"]
Zone = Literal["mastered", "learning", "too_hard", "undecided"]
"""How a question went in a round: every decided attempt correct, some, none; or none was decided."""

JOURNAL_VERSION = 5

# Statements stand apart by an empty line. Triggers say NOT EXISTS, because an ON CONFLICT of the statement that sets
# them off would stand in for an OR IGNORE of theirs.
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

CREATE TABLE attempt_counts (
    split TEXT NOT NULL, round INTEGER NOT NULL, verdict TEXT NOT NULL, decided_by TEXT NOT NULL,
    attempts INTEGER NOT NULL, PRIMARY KEY (split, round, verdict, decided_by)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER attempt_is_drawn AFTER INSERT ON trajectories BEGIN
    INSERT INTO attempt_counts SELECT NEW.split, NEW.round, '', '', 0 WHERE NOT EXISTS (
        SELECT 1 FROM attempt_counts
        WHERE split = NEW.split AND round = NEW.round AND verdict = '' AND decided_by = '');
    UPDATE attempt_counts SET attempts = attempts + 1
        WHERE split = NEW.split AND round = NEW.round AND verdict = '' AND decided_by = '';
END;

CREATE TRIGGER attempt_is_graded AFTER INSERT ON grades BEGIN
    INSERT INTO attempt_counts SELECT NEW.split, NEW.round, NEW.verdict, NEW.decided_by, 0 WHERE NOT EXISTS (
        SELECT 1 FROM attempt_counts
        WHERE split = NEW.split AND round = NEW.round AND verdict = NEW.verdict AND decided_by = NEW.decided_by);
    UPDATE attempt_counts SET attempts = attempts - 1
        WHERE split = NEW.split AND round = NEW.round AND verdict = '' AND decided_by = '';
    UPDATE attempt_counts SET attempts = attempts + 1
        WHERE split = NEW.split AND round = NEW.round AND verdict = NEW.verdict AND decided_by = NEW.decided_by;
END;

CREATE TRIGGER attempt_is_graded_again AFTER UPDATE ON grades BEGIN
    INSERT INTO attempt_counts SELECT NEW.split, NEW.round, NEW.verdict, NEW.decided_by, 0 WHERE NOT EXISTS (
        SELECT 1 FROM attempt_counts
        WHERE split = NEW.split AND round = NEW.round AND verdict = NEW.verdict AND decided_by = NEW.decided_by);
    UPDATE attempt_counts SET attempts = attempts - 1
        WHERE split = NEW.split AND round = NEW.round AND verdict = OLD.verdict AND decided_by = OLD.decided_by;
    UPDATE attempt_counts SET attempts = attempts + 1
        WHERE split = NEW.split AND round = NEW.round AND verdict = NEW.verdict AND decided_by = NEW.decided_by;
END;

CREATE TABLE question_results (
    round INTEGER NOT NULL, question_id TEXT NOT NULL,
    correct INTEGER NOT NULL, incorrect INTEGER NOT NULL, unknown INTEGER NOT NULL,
    zone TEXT NOT NULL AS (
        CASE WHEN correct AND incorrect THEN 'learning' WHEN correct THEN 'mastered' WHEN incorrect THEN 'too_hard'
        ELSE 'undecided' END
    ),
    PRIMARY KEY (round, question_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX question_results_by_zone ON question_results (round, zone);

CREATE TABLE zone_counts (
    round INTEGER NOT NULL, zone TEXT NOT NULL, questions INTEGER NOT NULL, PRIMARY KEY (round, zone)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER question_is_in_a_zone AFTER INSERT ON question_results BEGIN
    INSERT INTO zone_counts SELECT NEW.round, NEW.zone, 0 WHERE NOT EXISTS (
        SELECT 1 FROM zone_counts WHERE round = NEW.round AND zone = NEW.zone);
    UPDATE zone_counts SET questions = questions + 1 WHERE round = NEW.round AND zone = NEW.zone;
END;

CREATE TRIGGER question_changes_zone AFTER UPDATE ON question_results WHEN NEW.zone != OLD.zone BEGIN
    INSERT INTO zone_counts SELECT NEW.round, NEW.zone, 0 WHERE NOT EXISTS (
        SELECT 1 FROM zone_counts WHERE round = NEW.round AND zone = NEW.zone);
    UPDATE zone_counts SET questions = questions + 1 WHERE round = NEW.round AND zone = NEW.zone;
    UPDATE zone_counts SET questions = questions - 1 WHERE round = NEW.round AND zone = OLD.zone;
END;

CREATE INDEX pools_by_reason ON pools (round, reason);

CREATE TABLE pool_counts (
    round INTEGER NOT NULL, reason TEXT NOT NULL, questions INTEGER NOT NULL, PRIMARY KEY (round, reason)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER question_is_in_a_pool AFTER INSERT ON pools BEGIN
    INSERT INTO pool_counts SELECT NEW.round, NEW.reason, 0 WHERE NOT EXISTS (
        SELECT 1 FROM pool_counts WHERE round = NEW.round AND reason = NEW.reason);
    UPDATE pool_counts SET questions = questions + 1 WHERE round = NEW.round AND reason = NEW.reason;
END;

CREATE TRIGGER question_leaves_a_pool AFTER DELETE ON pools BEGIN
    UPDATE pool_counts SET questions = questions - 1 WHERE round = OLD.round AND reason = OLD.reason;
END;

CREATE TRIGGER question_is_graded AFTER INSERT ON grades WHEN NEW.split = 'train' BEGIN
    INSERT INTO question_results SELECT NEW.round, NEW.question_id, 0, 0, 0 WHERE NOT EXISTS (
        SELECT 1 FROM question_results WHERE round = NEW.round AND question_id = NEW.question_id);
    UPDATE question_results SET correct = correct + (NEW.verdict = 'correct'),
        incorrect = incorrect + (NEW.verdict = 'incorrect'), unknown = unknown + (NEW.verdict = 'unknown')
        WHERE round = NEW.round AND question_id = NEW.question_id;
END;

CREATE TRIGGER question_is_graded_again AFTER UPDATE ON grades WHEN NEW.split = 'train' BEGIN
    UPDATE question_results SET correct = correct + (NEW.verdict = 'correct') - (OLD.verdict = 'correct'),
        incorrect = incorrect + (NEW.verdict = 'incorrect') - (OLD.verdict = 'incorrect'),
        unknown = unknown + (NEW.verdict = 'unknown') - (OLD.verdict = 'unknown')
        WHERE round = NEW.round AND question_id = NEW.question_id;
END;

CREATE TABLE teacher_calls (
    request_hash TEXT PRIMARY KEY, task TEXT NOT NULL, endpoint TEXT NOT NULL, model TEXT NOT NULL,
    reply TEXT, failure TEXT NOT NULL, attempts INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
    latency_s REAL NOT NULL, cost REAL, at REAL NOT NULL
) STRICT;

CREATE INDEX teacher_calls_by_time ON teacher_calls (at);

CREATE TABLE teacher_totals (
    task TEXT NOT NULL, endpoint TEXT NOT NULL, model TEXT NOT NULL,
    calls INTEGER NOT NULL, attempts INTEGER NOT NULL, failed INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, latency_s REAL NOT NULL, cost REAL,
    PRIMARY KEY (task, endpoint, model)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER teacher_call_is_new AFTER INSERT ON teacher_calls BEGIN
    INSERT INTO teacher_totals SELECT NEW.task, NEW.endpoint, NEW.model, 0, 0, 0, 0, 0, 0.0, NULL WHERE NOT EXISTS (
        SELECT 1 FROM teacher_totals WHERE task = NEW.task AND endpoint = NEW.endpoint AND model = NEW.model);
    UPDATE teacher_totals SET calls = calls + 1, attempts = attempts + NEW.attempts,
        failed = failed + (NEW.reply IS NULL), prompt_tokens = prompt_tokens + NEW.prompt_tokens,
        completion_tokens = completion_tokens + NEW.completion_tokens, latency_s = latency_s + NEW.latency_s,
        cost = CASE WHEN NEW.cost IS NULL THEN cost ELSE coalesce(cost, 0) + NEW.cost END
        WHERE task = NEW.task AND endpoint = NEW.endpoint AND model = NEW.model;
END;

CREATE TRIGGER teacher_call_goes_on AFTER UPDATE ON teacher_calls BEGIN
    UPDATE teacher_totals SET attempts = attempts + NEW.attempts - OLD.attempts,
        failed = failed + (NEW.reply IS NULL) - (OLD.reply IS NULL),
        prompt_tokens = prompt_tokens + NEW.prompt_tokens - OLD.prompt_tokens,
        completion_tokens = completion_tokens + NEW.completion_tokens - OLD.completion_tokens,
        latency_s = latency_s + NEW.latency_s - OLD.latency_s,
        cost = CASE WHEN NEW.cost IS NULL THEN cost ELSE coalesce(cost, 0) + NEW.cost - coalesce(OLD.cost, 0) END
        WHERE task = NEW.task AND endpoint = NEW.endpoint AND model = NEW.model;
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
    round INTEGER NOT NULL, name TEXT NOT NULL, began_at REAL NOT NULL, ended_at REAL,
    outcome TEXT NOT NULL, note TEXT NOT NULL
) STRICT;

CREATE TABLE failures (
    at REAL NOT NULL, round INTEGER NOT NULL, stage TEXT NOT NULL, message TEXT NOT NULL, decision TEXT NOT NULL
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

    Times are seconds since the epoch. `outcome` is done, failed, paused, stopped, killed (its end: the run's last
    write), or running (no end yet). `note` says why it ended.
    """

    round: int
    name: str
    began_at: float
    ended_at: float | None
    outcome: str
    note: str = ""

    @property
    def seconds(self) -> float:
        """How long it took; 0 while it runs."""
        return (self.ended_at or self.began_at) - self.began_at


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
class PlayedQuestion:
    """A question of a round's pool, why it is there, and its attempts by verdict so far."""

    question_id: QuestionId
    text: str
    kind: str
    reason: PoolReason
    correct: int
    incorrect: int
    unknown: int

    @property
    def pass_rate(self) -> float | None:
        """Share of correct among the decided attempts."""
        decided = self.correct + self.incorrect
        return self.correct / decided if decided else None


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


@dataclass(frozen=True, slots=True)
class TaskTotals:
    """The same for one task at one endpoint; `latency_s` is that of all its HTTP calls together."""

    task: str
    endpoint: str
    model: str
    totals: TeacherTotals
    latency_s: float
