"""`python -m prosetting` is `prosetting`."""

import sys

from prosetting.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
