"""The command `python -m benchmarks`: arguments, tables, exit codes."""

import argparse
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure as the command line says; print tables, and write JSON where asked. Returns the exit code."""
    options = _parser().parse_args(arguments)
    return run_command("benchmarks", lambda: _act(options), debug=False)


def _act(options: argparse.Namespace) -> int:
    if getattr(options, "json", None):
        with writing(options.json), options.json.open("a"):
            pass  # said before minutes are spent on measuring
    return int(options.act(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="What emotiond costs and how well it sees, on this machine. The method: docs/benchmarks.md",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, text: str, act: Callable[[argparse.Namespace], int], *takes: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(act=act)
        for option in takes:
            made.add_argument(f"--{option}", **OPTIONS[option])
        return made

    command("inference", "the network alone: int8, float32, Keras", _measure, "json", "rounds", "python", "no-keras")
    command(
        "pipeline",
        "speed, latency, processor time, memory, beside the naive loop and decoding alone",
        _measure,
        *("json", "clip", "set", "rounds", "seconds", "starts", "no-keras"),
    )
    command(
        "detection", "what is missed against a full search of every frame", _measure, "json", "clip", "set", "no-mtcnn"
    )
    command(
        "flicker", "changes of emotion a minute, and the delay of a real one", _measure, "json", "clip", "set", "data"
    )
    command(
        "growth",
        "cost against the number of faces, and over time",
        _measure,
        "json",
        "clip",
        "set",
        "minutes",
        "rounds",
    )
    command("idle", "what the daemon takes before a still, empty room", _measure, "json", "set", "seconds")
    command("accuracy", "what the camera's way costs in accuracy", _measure, "json", "set", "data", "limit")
    command(
        "peers",
        "other packages, in environments of their own",
        _measure,
        *("json", "clip", "set", "python", "data", "limit", "rounds"),
    )
    command(
        "people",
        "emotiond image on many pictures, emotiond video beside decoding alone",
        _measure,
        *("json", "clip", "set", "limit", "rounds"),
    )
    command("dashboard", "emotiond web with a real browser and many devices", _measure, "json", "seconds")
    command(
        "events", "events from the daemon's link to a subscriber, at a steady rate", _measure, "json", "rate", "seconds"
    )
    command(
        "recovery",
        "how soon the daemon works again once its camera or broker is back",
        _measure,
        *("json", "set", "cycles", "away"),
    )
    made = command("pi", "an estimate for Raspberry Pis, from instructions counted under emulation", _measure, "json")
    made.add_argument("--root", type=Path, required=True, help="what benchmarks/arm64_root.sh made")
    made = command(
        "record",
        "measure everything and append it to benchmarks/results",
        _record,
        *("clip", "set", "python", "data", "limit", "rounds", "seconds", "starts", "minutes", "no-keras", "no-mtcnn"),
    )
    made.add_argument("--peer-python", metavar="P", help="as --python, for peers", **PYTHON)
    made.add_argument(
        "--only", action="append", choices=sorted({*MEASURES} - {"pi", "recovery"}), help="one part; may be given again"
    )
    made.add_argument("--folder", type=Path, help="another folder than benchmarks/results")
    made = command("trend", "draw frames a second over commits", _trend)
    made.add_argument("--out", type=Path, default=None, help="the PNG; default: trend.png beside the results")
    made.add_argument("--folder", type=Path, help="another folder than benchmarks/results")
    made = command("compare", "fail (1) when a ratio fell by more than 10 %%", _compare)
    made.add_argument("results", nargs="*", type=Path, help="old and new file of results; default: the newest two")
    made.add_argument("--folder", type=Path, help="another folder than benchmarks/results")
    return parser


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


PYTHON: dict[str, Any] = {"action": "append", "default": [], "type": Path}
OPTIONS: dict[str, dict[str, Any]] = {
    "json": {"type": Path, "metavar": "PATH", "help": "also write the figures as JSON"},
    "clip": {
        "action": "append",
        "default": [],
        "metavar": "F",
        "help": "a video, a folder of them, or builtin (default)",
    },
    "set": {"action": "append", "default": [], "metavar": "A.B=V", "help": "a setting of the daemon"},
    "rounds": {"type": _positive(int), "metavar": "N", "help": "turns of each contender; fewer for a quick look"},
    "seconds": {"type": _positive(float), "metavar": "S", "help": "that count, for each clip, spool or page"},
    "starts": {"type": _positive(int), "metavar": "N", "help": "cold starts of each clip"},
    "rate": {"type": _positive(float), "metavar": "R", "help": "events a second; default 200"},
    "cycles": {"type": _positive(int), "metavar": "N", "help": "losses of each kind and length; default 3"},
    "away": {
        "action": "append",
        "type": _positive(float),
        "metavar": "S",
        "help": "seconds that what is lost stays away; may be given again; default 2, 20 and 50",
    },
    "minutes": {"type": _positive(float), "metavar": "M", "help": "of media, for the cost over time"},
    "python": {**PYTHON, "metavar": "P", "help": "the interpreter of another environment that takes part"},
    "data": {"type": Path, "metavar": "D", "help": "FER2013: the CSV or its folder (default: EMOTIOND_DATA)"},
    "no-keras": {
        "action": "store_const",
        "const": False,
        "dest": "keras",
        "help": "leave Keras out, which takes long to start, and with it the naive loop",
    },
    "no-mtcnn": {
        "action": "store_const",
        "const": False,
        "dest": "mtcnn",
        "help": "leave MTCNN out of the detectors, which brings TensorFlow",
    },
    "limit": {"type": _positive(int), "metavar": "N", "help": "only the first so many pictures"},
}


def _given(options: argparse.Namespace, **names: str) -> dict[str, Any]:
    """Those options that were given, under the names of a function's parameters."""
    values = {name: getattr(options, option, None) for name, option in names.items()}
    return {name: value for name, value in values.items() if value is not None}


def _data(options: argparse.Namespace) -> Path | None:
    """FER2013 as an argument or EMOTIOND_DATA names it; None if neither does."""
    named = os.environ.get("EMOTIOND_DATA")
    return options.data or (Path(named) if named else None)


# What is heavy is imported when it is needed.
def _inference(options: argparse.Namespace) -> Result:
    from benchmarks import inference

    return inference.run(**_given(options, rounds="rounds", pythons="python", keras="keras"))


def _pipeline(options: argparse.Namespace) -> Result:
    from benchmarks import pipeline

    return pipeline.run(
        **_given(
            options,
            named="clip",
            overrides="set",
            rounds="rounds",
            live_s="seconds",
            cold_starts="starts",
            keras="keras",
        )
    )


def _detection(options: argparse.Namespace) -> Result:
    from benchmarks import detection

    return detection.run(**_given(options, named="clip", overrides="set", mtcnn="mtcnn"))


def _flicker(options: argparse.Namespace) -> Result:
    from benchmarks import flicker

    options.data = _data(options)
    return flicker.run(**_given(options, named="clip", overrides="set", data="data"))


def _growth(options: argparse.Namespace) -> Result:
    from benchmarks import growth

    return growth.run(**_given(options, named="clip", overrides="set", minutes="minutes", rounds="rounds"))


def _idle(options: argparse.Namespace) -> Result:
    from benchmarks import idle

    return idle.run(**_given(options, overrides="set", seconds="seconds"))


def _accuracy(options: argparse.Namespace) -> Result:
    from benchmarks import accuracy

    return accuracy.run(options.data, **_given(options, overrides="set", limit="limit"))


def _peers(options: argparse.Namespace) -> Result:
    from benchmarks import peers

    options.data = _data(options)
    return peers.run(
        **_given(options, named="clip", overrides="set", pythons="python", data="data", limit="limit", rounds="rounds")
    )


def _people(options: argparse.Namespace) -> Result:
    from benchmarks import people

    return people.run(**_given(options, named="clip", overrides="set", limit="limit", rounds="rounds"))


def _dashboard(options: argparse.Namespace) -> Result:
    from benchmarks import dashboard

    return dashboard.run(**_given(options, seconds="seconds"))


def _events(options: argparse.Namespace) -> Result:
    from benchmarks import events

    return events.run(**_given(options, rate="rate", seconds="seconds"))


def _recovery(options: argparse.Namespace) -> Result:
    from benchmarks import recovery

    return recovery.run(**_given(options, overrides="set", cycles="cycles", aways_s="away"))


def _pi(options: argparse.Namespace) -> Result:
    from benchmarks import pi

    return pi.run(options.root.resolve())


MEASURES: dict[str, Callable[[argparse.Namespace], Result]] = {
    "inference": _inference,
    "pipeline": _pipeline,
    "detection": _detection,
    "flicker": _flicker,
    "growth": _growth,
    "idle": _idle,
    "accuracy": _accuracy,
    "peers": _peers,
    "people": _people,
    "dashboard": _dashboard,
    "events": _events,
    "recovery": _recovery,
    "pi": _pi,
}
COLUMNS_MAX = 12  # a clip's row is printed as figure by figure beyond


def _measure(options: argparse.Namespace) -> int:
    result = MEASURES[options.command](options)
    sys.stdout.write(show(result))
    if options.json:
        with writing(options.json):
            options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def _record(options: argparse.Namespace) -> int:
    from benchmarks import history

    names = options.only or [name for name in MEASURES if _can_be_recorded(name, options)]
    of_peers = argparse.Namespace(**{**vars(options), "python": options.peer_python})
    parts = {
        name: (lambda measure=measure, given=of_peers if name == "peers" else options: measure(given))
        for name, measure in MEASURES.items()
        if name in names
    }
    path = history.record(parts, **_given(options, folder="folder"))
    sys.stdout.write(f"appended to {path}\n")
    return 0


def _can_be_recorded(name: str, options: argparse.Namespace) -> bool:
    """Whether what it takes was named. An estimate is no result, and waiting is none for a trend."""
    needs = {"accuracy": _data(options), "peers": options.peer_python, "pi": None, "recovery": None}
    return bool(needs.get(name, True))


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
