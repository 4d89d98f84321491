"""How pages are made of templates: everything is text unless this program drew it.

Whatever a template puts out is escaped, and what a terminal or a bidirectional text would obey is shown as `\\u202e`
and the like, because questions, attempts and messages come from models. Only charts are markup.
"""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from prosetting.core.text import printable
from prosetting.managers.charts import duration
from prosetting.managers.round_gate import leaves_kept
from prosetting.managers.run_summary import trained_in_words

TEMPLATES = Path(__file__).parent / "templates"
SHOWN_CHARS = 4_000


@cache
def environment(*more_folders: Path) -> Environment:
    """Templates of this folder and of others before it."""
    made = Environment(
        loader=FileSystemLoader([*more_folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (share, count, percent, duration, clock, words, cut, size, one_line, leaves_kept, trained_in_words)
    made.filters.update({function.__name__: function for function in filters})
    return made


@cache
def css(name: str) -> str:
    """A style sheet of this folder."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _visible(value: Any) -> Any:
    """What `{{ … }}` shows, before it is escaped."""
    if value is None:
        return "–"
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def size(size_bytes: float | None) -> str:
    if size_bytes is None:
        return "–"
    for unit in ("B", "KiB", "MiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:,.1f} GiB"


def clock(at: float | None) -> str:
    """A moment in local time."""
    return "–" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def words(name: str) -> str:
    return name.replace("_", " ")


def one_line(text: str, most: int = 160) -> str:
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most and len(text) <= 4 * most else line[: most - 1] + "…"


def cut(text: str, most: int = SHOWN_CHARS) -> str:
    """The beginning and the end of a long text, where an answer stands."""
    if len(text) <= most:
        return text
    left_out = len(text) - most
    return f"{text[: most // 2]}\n[… {left_out:,} characters left out …]\n{text[-(most // 2) :]}"
