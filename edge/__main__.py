"""`python -m edge` is the command `emotiond`."""

import sys

try:
    from edge.cli import main
except KeyboardInterrupt:
    sys.exit(130)  # as `main` says it

if __name__ == "__main__":
    main()
