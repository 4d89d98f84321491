"""A stop signal may come while the main thread is in the middle of anything."""

from __future__ import annotations

import io
import logging
import os
import signal
import time

from processes import until

from prosetting.core import stopping


class _SignalsWhileWriting(io.RawIOBase):
    """A file whose first write is interrupted by SIGTERM, as a log file's may be."""

    def __init__(self) -> None:
        self.written = b""
        self.asked = False

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:  # type: ignore[no-untyped-def, override]
        if not self.asked:
            self.asked = True
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0)  # the handler runs here, within the flush of the buffer above
        self.written += bytes(data)
        return len(data)


def test_a_signal_in_the_middle_of_a_log_line_is_told_after_it(capfd):
    file = _SignalsWhileWriting()
    handler = logging.StreamHandler(io.TextIOWrapper(io.BufferedWriter(file), write_through=True))
    log = logging.getLogger("prosetting")
    log.addHandler(handler)
    try:
        with stopping.stoppable():
            log.warning("a line")
            assert stopping.requested()
        until(lambda: b"again to stop at once" in file.written)
    finally:
        log.removeHandler(handler)
    lines = file.written.decode().splitlines()
    assert lines[0] == "a line"
    assert "again to stop at once" in lines[1]
    assert "Traceback" not in capfd.readouterr().err
