"""Quick test of the whole system's logic: the unit tests. Flags are passed on to pytest."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

if __name__ == "__main__":
    if not (ROOT / "tests" / "unit").is_dir():
        sys.exit(f"there are no tests in {ROOT}: this needs a checkout of the repository")
    sys.exit(subprocess.call([sys.executable, "-m", "pytest", "tests/unit", *sys.argv[1:]], cwd=ROOT))
