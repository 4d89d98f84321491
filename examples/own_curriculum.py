"""A strategy of one's own without a change of the project: `python examples/own_curriculum.py` is a run with it.

Whatever else `prosetting run` takes may follow. docs/strategies.md tells what the other families' functions look like.
"""

from __future__ import annotations

import sys

from prosetting.cli.main import main
from prosetting.processors.curriculum import CURRICULA, Band
from prosetting.records import QuestionKind


def halves(pass_rate: float, band: Band) -> QuestionKind:
    """Harder where at least half of the attempts were correct, easier elsewhere: no question keeps its level."""
    return "harder" if pass_rate >= 0.5 else "easier"


CURRICULA["halves"] = halves

if __name__ == "__main__":
    sys.exit(main(["run", "--curriculum", "halves", *sys.argv[1:]]))
