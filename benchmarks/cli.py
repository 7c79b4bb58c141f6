"""The command `python -m benchmarks`: arguments, tables, exit codes."""

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import aligned, table
from edge.errors import BadDataError, UsageError
from training.console import run_command, writing

Result = dict[str, Any]


def _positive(kind: type) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            number = kind(text)
        except ValueError:
            number = 0
        if not 0 < number < 1e6:
            raise argparse.ArgumentTypeError("must be a number above 0")
        return number

    return parse


# Each part is a module here, whose `run` measures; and the options that it takes, which are `run`'s parameters.
PARTS: dict[str, tuple[str, str]] = {
    "inference": ("the network alone: int8, float32, Keras", "rounds python no-keras"),
    "pipeline": (
        "speed, latency, processor time, memory, beside the naive loop and decoding alone",
        "clip set rounds seconds starts no-keras",
    ),
    "detection": ("what is missed against a full search of every frame", "clip set no-mtcnn"),
    "flicker": ("changes of emotion a minute, and the delay of a real one", "clip set data"),
    "growth": ("cost against the number of faces, and over time", "clip set minutes rounds"),
    "idle": ("what the daemon takes before a still, empty room", "set seconds"),
    "accuracy": ("what the camera's way costs in accuracy", "set data limit"),
    "peers": ("other packages, in environments of their own", "clip set python data limit rounds"),
    "people": ("emotiond image on many pictures, emotiond video beside decoding alone", "clip set limit rounds"),
    "dashboard": ("emotiond web with a real browser and many devices", "seconds"),
    "events": ("events from the daemon's link to a subscriber, at a steady rate", "rate seconds"),
    "recovery": ("how soon the daemon works again once its camera or broker is back", "set cycles away"),
    "pi": ("an estimate for Raspberry Pis, from instructions counted under emulation", "root"),
}
OF_RECORD = "clip set python data limit rounds seconds starts minutes no-keras no-mtcnn peer-python only folder"
NOT_RECORDED = ("pi", "recovery")  # an estimate is no result, and waiting is none for a trend
AGAIN: dict[str, Any] = {"action": "append", "default": []}
OFF: dict[str, Any] = {"action": "store_const", "const": False}
OPTIONS: dict[str, dict[str, Any]] = {
    "clip": {**AGAIN, "dest": "named", "metavar": "F", "help": "a video, a folder of them, or builtin (default)"},
    "set": {**AGAIN, "dest": "overrides", "metavar": "A.B=V", "help": "a setting of the daemon"},
    "rounds": {"type": _positive(int), "metavar": "N", "help": "turns of each contender; fewer for a quick look"},
    "seconds": {"type": _positive(float), "metavar": "S", "help": "that count, for each clip, spool or page"},
    "starts": {"type": _positive(int), "metavar": "N", "dest": "cold_starts", "help": "cold starts of each clip"},
    "rate": {"type": _positive(float), "metavar": "R", "help": "events a second; default 200"},
    "cycles": {"type": _positive(int), "metavar": "N", "help": "losses of each kind and length; default 3"},
    "away": {
        "action": "append",
        "type": _positive(float),
        "metavar": "S",
        "dest": "aways_s",
        "help": "seconds that what is lost stays away; may be given again; default 2, 20 and 50",
    },
    "minutes": {"type": _positive(float), "metavar": "M", "help": "of media, for the cost over time"},
    "python": {
        **AGAIN,
        "type": Path,
        "dest": "pythons",
        "metavar": "P",
        "help": "the interpreter of another environment that takes part",
    },
    "peer-python": {**AGAIN, "type": Path, "metavar": "P", "help": "as --python, for peers"},
    "data": {"type": Path, "metavar": "D", "help": "FER2013: the CSV or its folder (default: EMOTIOND_DATA)"},
    "no-keras": {**OFF, "dest": "keras", "help": "leave Keras out, which takes long to start, and the naive loop"},
    "no-mtcnn": {**OFF, "dest": "mtcnn", "help": "leave MTCNN out of the detectors, which brings TensorFlow"},
    "limit": {"type": _positive(int), "metavar": "N", "help": "only the first so many pictures"},
    "root": {"type": Path, "required": True, "help": "what benchmarks/arm64_root.sh made"},
    "json": {"type": Path, "metavar": "PATH", "help": "also write the figures as JSON"},
    "folder": {"type": Path, "help": "another folder than benchmarks/results"},
    "only": {
        "action": "append",
        "choices": sorted({*PARTS} - {*NOT_RECORDED}),
        "help": "one part; may be given again",
    },
    "out": {"type": Path, "help": "the PNG; default: trend.png beside the results"},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure as the command line says; print tables, and write JSON where asked. Returns the exit code."""
    options = _parser().parse_args(arguments)
    return run_command("benchmarks", lambda: _act(options), debug=False)


def _act(options: argparse.Namespace) -> int:
    if getattr(options, "json", None):
        with writing(options.json), options.json.open("a"):
            pass  # said before minutes are spent on measuring
    if named := os.environ.get("EMOTIOND_DATA"):
        options.data = getattr(options, "data", None) or Path(named)
    return int(options.act(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="What emotiond costs and how well it sees, on this machine. The method: docs/benchmarks.md",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, text: str, act: Callable[[argparse.Namespace], int], takes: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(act=act)
        for option in takes.split():
            made.add_argument(f"--{option}", **OPTIONS[option])
        return made

    for part, (text, takes) in PARTS.items():
        command(part, text, _measure, f"json {takes}")
    command("record", "measure everything and append it to benchmarks/results", _record, OF_RECORD)
    command("trend", "draw frames a second over commits", _trend, "out folder")
    made = command("compare", "fail (1) when a ratio fell by more than a tenth", _compare, "folder")
    made.add_argument("results", nargs="*", type=Path, help="old and new file of results; default: the newest two")
    return parser


def measure(part: str, options: argparse.Namespace) -> Result:
    """What a part finds, by those of its options that were given."""
    module = importlib.import_module(f"benchmarks.{part}")  # some are heavy
    return module.run(**_given(options, PARTS[part][1]))


def _given(options: argparse.Namespace, takes: str) -> dict[str, Any]:
    """Those of some options that were given, by the names of a function's parameters."""
    names = [OPTIONS[option].get("dest", option) for option in takes.split()]
    return {name: value for name in names if (value := getattr(options, name, None)) is not None}


COLUMNS_MAX = 12  # a clip's row is printed as figure by figure beyond


def _measure(options: argparse.Namespace) -> int:
    result = measure(options.command, options)
    sys.stdout.write(show(result))
    if options.json:
        with writing(options.json):
            options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def _record(options: argparse.Namespace) -> int:
    from benchmarks import history

    def part(name: str) -> Callable[[], Result]:
        pythons = options.peer_python if name == "peers" else options.pythons
        return lambda: measure(name, argparse.Namespace(**{**vars(options), "pythons": pythons}))

    names = [name for name in PARTS if (name in options.only if options.only else _can_be_recorded(name, options))]
    path = history.record({name: part(name) for name in names}, **_given(options, "folder"))
    sys.stdout.write(f"appended to {path}\n")
    return 0


def _can_be_recorded(name: str, options: argparse.Namespace) -> bool:
    """Whether what it takes was named."""
    needs = {"accuracy": options.data, "peers": options.peer_python}
    return name not in NOT_RECORDED and bool(needs.get(name, True))


def _trend(options: argparse.Namespace) -> int:
    from benchmarks import history

    folder = options.folder or history.RESULTS
    path = options.out or folder / "trend.png"
    count = history.trend(path, folder)
    sys.stdout.write(f"{path}: {count} results\n")
    return 0


def _compare(options: argparse.Namespace) -> int:
    from benchmarks import history

    if len(options.results) > 2:
        raise UsageError("compare takes two files at most: the old results and the new ones")
    rows = history.compare(*options.results, folder=options.folder or history.RESULTS)
    sys.stdout.write(table([{key: row[key] for key in row if key != "why_not"} for row in rows]) + "\n")
    if all(row["change"] is None for row in rows):
        raise BadDataError("nothing could be compared: no ratio was measured in both on the same clips and settings")
    for reason in dict.fromkeys(row["why_not"] for row in rows if row["why_not"]):
        names = "; ".join(row["ratio"] for row in rows if row["why_not"] == reason)
        sys.stderr.write(f"benchmarks: not compared, {reason}: {names}\n")
    if fallen := history.fallen(rows):
        sys.stderr.write(f"benchmarks: fell by more than {history.FALL_MAX:.0%}: {'; '.join(fallen)}\n")
        return 1
    return 0


def show(result: Result) -> str:
    """A result as text: lists of rows as tables, the rest as lines."""
    text = []
    for key, value in result.items():
        if key == "machine":
            text.append(f"{value['processor']}, {value['cores']} cores, load {value['load']}, Python {value['python']}")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            text.append(_rows(value))
        elif isinstance(value, dict):
            text.append(f"{key}:\n" + "\n".join("  " + line for line in show(value).splitlines()))
        elif value not in ([], None):
            text.append(f"{key}: {_figure(value)}")
    return "\n".join(text) + "\n"


def _rows(rows: Sequence[Result]) -> str:
    flat = [{key: _figure(value) for key, value in row.items()} for row in rows]
    if len(flat[0]) <= COLUMNS_MAX:
        return table(flat)
    label, *keys = flat[0]
    # By place: two clips may have one name.
    return aligned([["", *(row[label] for row in flat)], *([key, *(row[key] for row in flat)] for key in keys)])


def _figure(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={_figure(one)}" for key, one in value.items())
    if isinstance(value, list) and len(value) == 2 and all(isinstance(one, float) for one in value):
        return " to ".join(map(_figure, value))  # an interval, which a minus would be misread in
    if isinstance(value, list):
        return "-".join(map(_figure, value)) or "none"
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
