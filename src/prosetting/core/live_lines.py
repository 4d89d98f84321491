"""Live lines at a terminal: one for each stage in progress, below the log lines that are printed as they come."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prosetting.core import pausing
from prosetting.core.progress import Progress, open_stages, told_of_changes

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

REFRESHES_A_SECOND = 4
BAR_CELLS = 16


def can_be_live() -> bool:
    """Whether stderr is a terminal that can redraw lines."""
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"


@contextmanager
def live_handler() -> Iterator[logging.Handler]:
    """A log handler for stderr that keeps a line for each open stage below what it prints. Colours obey NO_COLOR."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    live: Live | None = None

    def changed() -> None:
        nonlocal live
        if open_stages() and live is None:
            live = Live(
                console=console,
                get_renderable=lambda: _lines(open_stages()),
                refresh_per_second=REFRESHES_A_SECOND,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            live.start()
        elif not open_stages() and live is not None:
            live.stop()
            live = None

    with told_of_changes(changed):
        try:
            yield _Printer(console)
        finally:
            if live is not None:
                live.stop()


class _Printer(logging.Handler):
    """Prints log lines above the live ones, which tell progress better than lines of it."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(record, "progress", False)

    def emit(self, record: logging.LogRecord) -> None:
        from rich.text import Text

        self._console.print(Text(self.format(record)), soft_wrap=True)


def _lines(stages: list[Progress]) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    for stage in stages:
        table.add_row(
            Text(stage.what),
            ProgressBar(total=max(stage.total, 1), completed=stage.done, width=BAR_CELLS),
            Text(f"{stage.done}/{stage.total}"),
            Text(" · ".join([*_state(stage), *stage.figures()])),
        )
    return table


def _state(stage: Progress) -> list[str]:
    return ["paused"] if pausing.requested() else ["waits"] if stage.waits else []
