"""A program that is not ours as a child of the run: python -m prosetting.core.guarded PROGRAM ARGUMENT…

It ends with the run, which our own workers see to themselves, and it leaves nothing behind: when the program is gone,
killed or not, so is the whole process group. (vLLM's API server, killed, leaves its engine with the GPU.)
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from prosetting.core.children import end_with_the_run

NO_SUCH_PROGRAM = 127


def main() -> int:
    """Only a program that cannot be started has an exit status; otherwise the group's end is this process's too."""
    end_with_the_run()
    # The group gets the signal, so the program has it as well, and time to end by itself.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        program = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    except OSError as error:
        print(f"{sys.argv[1]} cannot be started: {error.strerror}", file=sys.stderr)
        return NO_SUCH_PROGRAM
    print(f"{sys.argv[1]} ended with exit status {program.wait()}", file=sys.stderr)
    os.killpg(0, signal.SIGKILL)
    return 0


if __name__ == "__main__":
    sys.exit(main())
