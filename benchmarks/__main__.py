"""`python -m benchmarks`: what emotiond costs on this machine."""

import argparse
import json
import sys
from pathlib import Path

from benchmarks import inference
from benchmarks.measure import table
from edge.errors import BadDataError, EmotiondError


def main() -> int:
    """Measure as the command line says; print a table, and write JSON where asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("inference", help="the network alone: int8 against float32")
    command.add_argument("--json", type=Path, metavar="PATH", help="also write the figures as JSON")
    command.add_argument("--rounds", type=int, default=inference.ROUNDS, metavar="N", help="fewer for a quick look")
    options = parser.parse_args()
    try:
        result = inference.run(options.rounds)
        sys.stdout.write(f"{table(result['rows'])}\nint8 over float32: {result['int8_over_float32']:.2f}x\n")
        if options.json:
            _write(options.json, json.dumps(result, indent=1) + "\n")
    except EmotiondError as error:
        sys.stderr.write(f"benchmarks: {error}\n")
        return error.exit_code
    return 0


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise BadDataError(f"--json: {path}: cannot be written: {error.strerror}") from None


if __name__ == "__main__":
    sys.exit(main())
