"""Semi-automatic training: asks before each round. The same as `prosetting run --mode semi`."""

import sys

from prosetting.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["run", "--mode", "semi", *sys.argv[1:]]))
