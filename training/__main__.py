"""`python -m training`: train, evaluate, report, explain, and a look at the data."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import BadDataError, ConfigError, UsageError
from edge.labels import EMOTIONS
from training.config import TrainConfig
from training.console import quiet, run_command, say, writing

if TYPE_CHECKING:
    from training.dataset import Dataset

BACKENDS = ("tensorflow", "torch", "jax")
# Keras and TensorFlow are imported inside the commands: --help and usage errors answer at once.


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = build_parser().parse_args(arguments)
    return run_command("training", lambda: _act(options), options.debug)


def _act(options: argparse.Namespace) -> int:
    backend = os.environ.get("KERAS_BACKEND")
    if backend and backend not in BACKENDS:
        raise ConfigError(f"KERAS_BACKEND={backend}: no such backend; set tensorflow, torch or jax")
    return int(options.run(options))


def build_parser() -> argparse.ArgumentParser:
    """The command line, as docs/training.md tells it."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands.add_parser("train", help="train a network into a run folder"))
    _add_evaluate(commands.add_parser("evaluate", help="judge a .keras or .tflite network on one split"))
    _add_report(commands.add_parser("report", help="one HTML page and PNGs about a run"))
    _add_explain(commands.add_parser("explain", help="class activation maps over pictures, in one grid"))
    _add_data(commands.add_parser("data", help="check a data set, print its class table, write it as folders"))
    return parser


def _add_train(train: argparse.ArgumentParser) -> None:
    _take_data(train)
    train.add_argument("--out", type=Path, required=True, metavar="RUN", help="the run folder")
    train.add_argument("--resume", action="store_true", help="go on after the last whole epoch in RUN")
    train.add_argument("--config", type=Path, metavar="YAML", help="settings, as in a run's config.json")
    train.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change one setting; repeatable"
    )
    train.add_argument("--epochs", type=int, help=f"default: {TrainConfig.epochs}")
    train.add_argument("--seed", type=int, help=f"default: {TrainConfig.seed}")
    train.add_argument("--votes", type=Path, metavar="CSV", help="FER+ votes; default: fer2013new.csv beside the CSV")
    train.add_argument("--start", metavar="RUN|FILE,...", help="begin with their mean weights instead of random ones")
    train.add_argument("--teachers", metavar="RUN|FILE,...", help="whose scores join the target; needs torch")
    train.add_argument("--deploy", type=Path, metavar="DIR", help="then convert into DIR, and write the report")
    train.add_argument("--hosts", metavar="HOST:PORT,...", help="one per process, the first coordinates; needs JAX")
    train.add_argument("--host-index", type=int, default=0, metavar="N", help="this process's place in --hosts, from 0")
    train.set_defaults(run=_train)


def _add_evaluate(evaluate: argparse.ArgumentParser) -> None:
    evaluate.add_argument("--model", type=Path, required=True, metavar="M")
    _take_data(evaluate)
    evaluate.add_argument(
        "--usage", help="Training, PublicTest, PrivateTest or test; default: PublicTest, or a folder's test"
    )
    evaluate.add_argument(
        "--votes",
        type=Path,
        metavar="CSV",
        help="FER+ votes, for the accuracy on clear majorities; default: as in train",
    )
    evaluate.add_argument(
        "--json", type=Path, metavar="PATH", help="also write the figures as JSON; - is standard output"
    )
    evaluate.set_defaults(run=_evaluate)


def _add_report(report: argparse.ArgumentParser) -> None:
    report.add_argument("run_folder", type=Path, metavar="RUN")
    _take_data(report)
    report.add_argument("--usage", help="rows to judge on; default: PublicTest, or a folder's test")
    report.add_argument(
        "--parity", type=Path, metavar="JSON", help="parity.json; default: RUN/tflite/parity.json if there"
    )
    report.add_argument(
        "--compare", type=Path, nargs="+", default=[], metavar="RUN", help="runs to set beside this one"
    )
    report.set_defaults(run=_report)


def _add_explain(explain: argparse.ArgumentParser) -> None:
    explain.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    explain.add_argument("--model", type=Path, required=True, metavar="M.keras")
    explain.add_argument("--emotion", action="append", choices=EMOTIONS, help="only this one; repeatable")
    explain.add_argument("--out", type=Path, default=Path("explain.png"), metavar="PNG", help="default: %(default)s")
    explain.set_defaults(run=_explain)


def _add_data(look: argparse.ArgumentParser) -> None:
    _take_data(look)
    look.add_argument(
        "--votes", type=Path, metavar="CSV", help="FER+ votes, to check that they align; default: as in train"
    )
    look.add_argument("--export-folders", type=Path, metavar="DIR", help="write train/<emotion>/ROW.png and test/...")
    look.set_defaults(run=_data)


def _take_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, metavar="CSV_OR_DIR", help="FER2013; default: EMOTIOND_DATA")


_SETTINGS = ("epochs", "seed", "start", "teachers")
"""Settings with an option of their own."""


def _settings(options: argparse.Namespace) -> TrainConfig:
    from training import config

    path = options.config or (options.out / "config.json" if options.resume else None)
    settings = config.load(path) if path else TrainConfig()
    changes = dict(map(_named_value, options.set))
    changes |= {name: getattr(options, name) for name in _SETTINGS if getattr(options, name) is not None}
    return config.override(settings, changes)


def _named_value(change: str) -> tuple[str, str]:
    name, equals, value = change.partition("=")
    if not (name and equals):
        raise ConfigError(f"--set {change}: must look like name=value")
    return name, value


def _train(options: argparse.Namespace) -> int:
    from training import checks, data

    if options.host_index and not options.hosts:
        raise UsageError(f"--host-index {options.host_index}: needs --hosts")
    settings = _settings(options)
    votes = options.votes or (data.find_votes(options.data) if settings.label_share < 1 else None)
    dataset = data.load(options.data, votes)
    say(f"{checks.class_table(dataset)}\n{checks.describe(dataset)}")
    if options.deploy:
        _require_deployable(dataset)
        with writing(options.deploy):
            options.deploy.mkdir(parents=True, exist_ok=True)
    hosts = options.hosts.split(",") if options.hosts else [""]
    if options.hosts:
        from training.hosts import join

        join(hosts, options.host_index)  # not quiet: JAX ends the process itself if the others do not come
    with quiet():
        from training.train import train

    train(dataset, settings, options.out, options.resume, options.host_index, len(hosts))
    if options.deploy and options.host_index == 0:
        return _deploy(options)
    return 0


def _require_deployable(dataset: "Dataset") -> None:
    """Raise BadDataError for data that `convert` will refuse, before hours go into training on it."""
    from convert import calibration

    try:
        dataset.split(dataset.default_test)
        if calibration.find(dataset) is None:
            calibration.draw(dataset)
    except BadDataError as error:
        raise BadDataError(f"--deploy: {error}; give data that holds them, or leave out --deploy") from error


def _deploy(options: argparse.Namespace) -> int:
    """Convert in a process of its own, which needs TensorFlow as the backend; then report."""
    given = ["--model", str(options.out / "model.keras"), "--out", str(options.deploy)]
    given += ["--data", str(options.data)] if options.data else []
    parity = options.deploy / "parity.json"
    before = _written(parity)
    code = subprocess.run([sys.executable, "-m", "convert", *given], check=False).returncode
    # Also if the conversion cost too much, which the report shows; but no parity of an earlier one.
    compared = parity if _written(parity) != before else None
    return _write_report(options.out, options.data, parity=compared) or code


def _written(path: Path) -> int | None:
    """When a file was last written, in nanoseconds."""
    return path.stat().st_mtime_ns if path.exists() else None


def _report(options: argparse.Namespace) -> int:
    beside = options.run_folder / "tflite" / "parity.json"
    parity = options.parity or (beside if beside.is_file() else None)
    return _write_report(options.run_folder, options.data, options.usage, parity, options.compare)


def _write_report(
    run: Path, source: Path | None, usage: str | None = None, parity: Path | None = None, others: Sequence[Path] = ()
) -> int:
    from training import data
    from training.dataset import require_usage

    require_usage(usage)
    dataset = data.load(source)
    with quiet():
        from training import report
    page = report.write(run, dataset, usage or dataset.default_test, parity, others)
    sys.stdout.write(f"{page}\n")
    return 0


def _explain(options: argparse.Namespace) -> int:
    with quiet():
        from training import evaluate, explain
    import numpy as np

    faces = np.stack([explain.read_face(path) for path in options.images])
    maps, scores = explain.activation_maps(evaluate.load_keras(options.model), faces)
    figure = explain.grid(faces, maps, scores, [path.name for path in options.images], options.emotion or EMOTIONS)
    try:
        with writing(options.out) as path:
            # Named, or matplotlib would write `a` as `a.png`.
            figure.savefig(path, dpi=150, format=path.suffix[1:] or "png")
    except ValueError as error:  # matplotlib's word on an ending that it does not know
        raise UsageError(f"--out {options.out}: {error}") from error
    sys.stdout.write(f"{options.out}\n")
    return 0


def _data(options: argparse.Namespace) -> int:
    from training import checks, data

    started = time.monotonic()
    dataset = data.load_with_votes(options.data, options.votes)
    say(f"loaded in {time.monotonic() - started:.1f} s")
    sys.stdout.write(f"{checks.class_table(dataset)}\n{checks.describe(dataset)}\n")
    if options.export_folders:
        count = data.export_folders(dataset, options.export_folders)
        sys.stdout.write(f"{count} pictures -> {options.export_folders}\n")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from training import data, evaluate
    from training.dataset import require_usage

    require_usage(options.usage)
    dataset = data.load_with_votes(options.data, options.votes)
    result = evaluate.evaluate(options.model, dataset, options.usage or dataset.default_test)
    text = json.dumps(result, indent=2) + "\n"
    if options.json == Path("-"):
        sys.stdout.write(text)
    else:
        sys.stdout.write(evaluate.table(result) + "\n")
        if options.json:
            with writing(options.json) as path:
                path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
