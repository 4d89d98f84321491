"""Quick test of the whole system's logic: the crash certificate, then the unit tests where there are some."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from prosetting.cli.main import main

if __name__ == "__main__":
    code = main(["selfcheck", "--crash", "--quick", *sys.argv[1:]])
    tests = Path(__file__).resolve().parents[1] / "tests" / "unit"
    if code == 0 and not sys.argv[1:] and tests.is_dir() and find_spec("pytest"):
        code = subprocess.call([sys.executable, "-m", "pytest", str(tests)], cwd=tests.parents[1])
    sys.exit(code)
