"""Without verl's environment these tests fail, they do not skip: `make test-verl` builds it first."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parent / "contract")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("verl")


@pytest.fixture(scope="session")
def verl_python() -> Path:
    from verls_python import VERL_PYTHON

    assert VERL_PYTHON.is_file(), f"there is no {VERL_PYTHON}: make verl-env, or set VERL_PYTHON"
    return VERL_PYTHON


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_model import build_tiny_model

    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "solver")
