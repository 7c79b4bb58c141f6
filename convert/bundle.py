"""`python -m convert.bundle`: a converted network as one file for devices, to be signed with minisign."""

import argparse
from pathlib import Path

from edge.bundle import CARD, FILES, Bundle, pack, unpack
from edge.errors import InputNotFoundError
from training.console import run_command, say, writing


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m convert.bundle", description=__doc__)
    parser.add_argument("--models", type=Path, required=True, metavar="DIR", help=f"what convert wrote, and a {CARD}")
    parser.add_argument("--name", default="emotion", help="for people")
    parser.add_argument(
        "--version", type=int, required=True, metavar="N", help="larger than of those before, e.g. 20261121"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args(arguments)
    return run_command("convert.bundle", lambda: bundle(options), options.debug)


def bundle(options: argparse.Namespace) -> int:
    """Write the bundle, and say how it is signed. Raises InputNotFoundError, BadDataError or OutputError."""
    files = {}
    for name in FILES:
        try:
            files[name] = (options.models / name).read_bytes()
        except OSError as error:
            wanted = "the network's card, which you write" if name == CARD else "python -m convert writes it"
            raise InputNotFoundError(f"{options.models / name}: {error.strerror}; {wanted}") from None
    made = Bundle(options.name, options.version, files)
    content = pack(made)
    unpack(content, str(options.out))  # what no device would take is not signed
    with writing(options.out):
        options.out.write_bytes(content)
    say(f"{options.out}: {made}; sign it: minisign -S -m {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
