"""`python -m edge` is the command `emotiond`."""

from edge.cli import main

if __name__ == "__main__":
    main()
