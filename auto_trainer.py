"""Fully automatic training, the same as `prosetting run --mode auto`. Flags are passed on."""

import sys

from prosetting.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["run", "--mode", "auto", *sys.argv[1:]]))
