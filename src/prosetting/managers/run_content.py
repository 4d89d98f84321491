"""What two runs of one seed have in common: files but for `meta` and what was measured, and the journal's tables."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

# What happened on the way, so not equal in two runs. It stands in `meta` everywhere but in the summary.
_MEASURED_KEYS = {"meta", "duration_seconds", "teacher", "errors", "rounds_with_failures"}
_MEASURED_COLUMNS = {"stages": {"seconds", "finished_at"}, "teacher_calls": {"attempts", "latency_s", "at"}}
# Counts keep a 0 of what there was once, such as a verdict that was unknown before the resume.
_ON_THE_WAY = {"failures", "spans", "teacher_totals", "attempt_counts", "zone_counts", "pool_counts"}
_FILES = ("metrics.jsonl", "prosetting.db", "prosetting.lock", "report.html")
# The reports among `results` tell times; what was scored at the end is compared.
_REPORTS = ("results/report.md", "results/learning_curve.svg")
_NOT_COMPARED = ("control", "logs", "quarantine", *_FILES, *_REPORTS)


def content_of(workspace: Path) -> dict[str, Any]:
    """Everything that two runs of one seed have in common, by file and by table of the journal."""
    found: dict[str, Any] = {}
    for path in sorted(workspace.rglob("*")):
        name = path.relative_to(workspace)
        left_out = {name.parts[0], str(name)} & set(_NOT_COMPARED) or name.name.startswith("prosetting.db")
        if path.is_file() and not left_out:
            found[str(name)] = _file_content(path, workspace)
    with closing(sqlite3.connect(f"file:{workspace / 'prosetting.db'}?mode=ro", uri=True)) as db:
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in set(tables) - _ON_THE_WAY:
            found[f"journal:{table}"] = _rows(db, table, workspace)
    return found


def _file_content(path: Path, workspace: Path) -> bytes:
    """The bytes, without the workspace's own place and, of JSON, without what was measured."""
    content = path.read_bytes()
    if path.suffix == ".json" and path.is_relative_to(workspace):
        content = json.dumps(_without_measured(json.loads(content)), ensure_ascii=False).encode()
    return content.replace(str(workspace).encode(), b"WORKSPACE")


def _without_measured(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_measured(item) for key, item in value.items() if key not in _MEASURED_KEYS}
    return [_without_measured(item) for item in value] if isinstance(value, list) else value


def _rows(db: sqlite3.Connection, table: str, workspace: Path) -> list[str]:
    cursor = db.execute(f"SELECT * FROM {table}")  # the name is SQLite's own
    measured = _MEASURED_COLUMNS.get(table, set())
    kept = [index for index, column in enumerate(cursor.description) if column[0] not in measured]
    rows = (json.dumps([row[index] for index in kept]) for row in cursor if row[0] != "run_seconds")
    return sorted(row.replace(str(workspace), "WORKSPACE") for row in rows)


def differences_in(expected: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """What differs, by name."""
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            yield f"{name} is missing"
        elif name not in expected:
            yield f"{name} is too much"
        elif expected[name] != found[name]:
            yield f"{name} differs"
