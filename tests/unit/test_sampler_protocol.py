"""What a sampling process says to a run that has no time to listen."""

from __future__ import annotations

import subprocess
import sys

import pytest

MESSAGES = 500
SPEAKER = f"""
from prosetting.collectors.sampler_protocol import keep_stdout_for_protocol
say = keep_stdout_for_protocol()
for _ in range({MESSAGES}):
    say({{"rows": "x" * 1000}})
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the size of a pipe can be set on Linux alone")
def test_half_a_megabyte_waits_for_a_busy_reader_and_holds_nobody_up() -> None:
    speaker = subprocess.Popen([sys.executable, "-c", SPEAKER], stdout=subprocess.PIPE, text=True)
    try:
        assert speaker.wait(timeout=60) == 0
        assert speaker.stdout is not None
        assert len(speaker.stdout.readlines()) == MESSAGES
    finally:
        speaker.kill()
