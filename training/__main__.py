"""`python -m training`: train, evaluate, report, explain, and a look at the data."""

import argparse
import os
import sys
from pathlib import Path

from edge.errors import EmotiondError
from training.config import TrainConfig
from training.console import say

# Keras and TensorFlow are imported inside the commands: --help and usage errors answer at once.


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = build_parser().parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow greets on stderr otherwise
    try:
        return int(options.run(options))
    except EmotiondError as error:
        if options.debug:
            raise
        say(f"training: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        say("\nstopped; a training run goes on with --resume")
        return 130


def build_parser() -> argparse.ArgumentParser:
    """The command line, as docs/training.md tells it."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a network into a run folder")
    _add_data(train)
    train.add_argument("--out", type=Path, required=True, metavar="RUN", help="the run folder")
    train.add_argument("--resume", action="store_true", help="go on after the last whole epoch in RUN")
    train.add_argument("--config", type=Path, metavar="YAML", help="settings, as in a run's config.json")
    train.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change one setting; repeatable"
    )
    train.add_argument("--epochs", type=int)
    train.add_argument("--seed", type=int)
    train.add_argument("--votes", type=Path, metavar="CSV", help="FER+ votes; default: fer2013new.csv beside the CSV")
    train.set_defaults(run=_train)
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, metavar="CSV_OR_DIR", help="FER2013; default: EMOTIOND_DATA")


def _settings(options: argparse.Namespace) -> TrainConfig:
    from training import config

    path = options.config or (options.out / "config.json" if options.resume else None)
    settings = config.load(path) if path else TrainConfig()
    changes = dict(item.partition("=")[::2] for item in options.set)
    changes |= {name: getattr(options, name) for name in ("epochs", "seed") if getattr(options, name) is not None}
    return config.override(settings, changes)


def _train(options: argparse.Namespace) -> int:
    from training import data

    settings = _settings(options)
    votes = options.votes or (data.find_votes(options.data) if settings.label_share < 1 else None)
    dataset = data.load(options.data, votes)
    say(data.class_table(dataset))
    from training.train import train

    train(dataset, settings, options.out, options.resume)
    return 0


if __name__ == "__main__":
    sys.exit(main())
