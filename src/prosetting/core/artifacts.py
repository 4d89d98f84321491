"""Files for people and other tools: each is written whole or not at all, and says its schema version.

The journal is the truth; these are written from it. Times, pids and latencies stand together in `meta`,
so that two runs compare equal without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prosetting.core.crash_points import kind_of, reached
from prosetting.errors import DataError

SCHEMA_VERSION = 1


_FLAT_ROW = json.JSONEncoder(ensure_ascii=False, separators=(",\n   ", ": "))
_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")


@contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it is synced and renamed over `path`, for good on return."""
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    what = kind_of(path)
    try:
        reached(f"artifact:begun:{what}")
        yield temporary
        reached(f"artifact:written:{what}")
        _sync(temporary)
        reached(f"artifact:synced:{what}")
        os.replace(temporary, path)
        reached(f"artifact:renamed:{what}")
        _sync(path.parent)
        reached(f"artifact:settled:{what}")
    except OSError as error:
        error.filename = error.filename or str(path)  # a write that fails does not say of what
        raise
    finally:
        # What hinders the write may hinder this too, and must not stand before it.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder and what is missing above it, so that none of them is lost with the power."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync(folder.parent)


def remove_temporaries(folder: Path) -> None:
    """Remove what killed writers left. Nobody else may be writing below `folder`."""
    for name in folder.rglob(".*.tmp"):
        if _TEMPORARY.fullmatch(name.name):
            name.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: dict[str, Any], **meta: Any) -> None:
    """Write one artefact: `schema_version`, the content, and `meta` with the time of writing.

    A value of `content` that is an iterator becomes an array, written item by item: it is never in memory whole.
    """
    meta = {"written_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **meta}
    with replace_atomically(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        opening = "{"
        for name, value in {"schema_version": SCHEMA_VERSION, **content, "meta": meta}.items():
            stream.write(f"{opening}\n {json.dumps(name)}: ")
            stream.writelines(_array(value) if isinstance(value, Iterator) else [_indented(value, " ")])
            opening = ","
        stream.write("\n}")


def _array(items: Iterator[Any]) -> Iterator[str]:
    opening = "["
    for item in items:
        yield f"{opening}\n  {_row(item)}"
        opening = ","
    yield "[]" if opening == "[" else "\n ]"


def _row(item: Any) -> str:
    if not isinstance(item, dict) or not item or any(isinstance(value, dict | list | tuple) for value in item.values()):
        return _indented(item, "  ")
    # The C encoder does not indent; a flat row needs no more than its separator, at a tenth of the time.
    return f"{{\n   {_FLAT_ROW.encode(item)[1:-1]}\n  }}"


def _indented(value: Any, indent: str) -> str:
    """As JSON inside something that is indented by `indent`; a line break of a text is never one of JSON."""
    return json.dumps(value, ensure_ascii=False, indent=1).replace("\n", f"\n{indent}")


def read_json(path: Path) -> dict[str, Any]:
    """Read one artefact. Raises DataError when it is damaged or of another version."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}", next_step="prosetting status") from error
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        raise DataError(f"{path} is not of schema version {SCHEMA_VERSION}", next_step="use the version that wrote it")
    return content


def digest(*parts: Any) -> str:
    """A hash of JSON-ready values: equal content, equal digest."""
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(json.dumps(part, ensure_ascii=False, sort_keys=True, default=str).encode())
        hasher.update(b"\0")
    return hasher.hexdigest()[:32]


def draw_seed(*parts: object) -> int:
    """The seed of one random draw, from what names it (run seed, round, question id, attempt): 63 bits."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
