"""Unified launcher: `python run_training.py [--mode semi]`, the same as `prosetting run`."""

import sys

from prosetting.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
