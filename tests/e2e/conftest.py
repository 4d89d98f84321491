"""A small solver made once a session, and one finished run of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from whole_runs import SMALL, Demo

from prosetting.demo.prepare import prepare


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    prepare(folder, 5, workspace=folder / "unused", recipe=SMALL, say=lambda text: None)
    return Demo(folder)


@pytest.fixture(scope="session")
def finished(demo, tmp_path_factory) -> Path:
    """The workspace of one uninterrupted run of five rounds."""
    workspace = tmp_path_factory.mktemp("finished") / "run"
    done = demo.run(workspace)
    assert done.returncode == 0, done.stderr[-4000:]
    return workspace
