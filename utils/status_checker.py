"""System status and configuration: `prosetting doctor [--quick]`, then `prosetting status`."""

import sys

from prosetting.cli.checker import check_and_status

if __name__ == "__main__":
    sys.exit(check_and_status(sys.argv[1:]))
