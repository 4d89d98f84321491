"""What `utils/status_checker.py` shows: the checks of `doctor`, then the status of the run where there is one."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from prosetting.cli.main import app, main
from prosetting.core.text import printable
from prosetting.errors import EXIT_DONE, EXIT_FAILED, ProSettingError


def check_and_status(args: Sequence[str]) -> int:
    """`--quick` belongs to the checks; other flags go to both. Returns the exit code of the checks."""
    code = main(["doctor", *args])
    if "--help" in args or code not in (EXIT_DONE, EXIT_FAILED):
        return code
    print()
    try:
        with contextlib.suppress(SystemExit):
            app(["status", *(arg for arg in args if arg != "--quick")], prog_name="prosetting")
    except ProSettingError as error:
        # A fresh workspace has no run, which is nothing wrong; what is wrong the checks have told.
        print(printable(f"Run: {error.what}"))
    return code
