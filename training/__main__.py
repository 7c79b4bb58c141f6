"""`python -m training`: train, evaluate, report, explain, and a look at the data."""

import argparse
import json
import sys
from pathlib import Path

from edge.errors import EmotiondError
from training.config import TrainConfig
from training.console import quiet, say

# Keras and TensorFlow are imported inside the commands: --help and usage errors answer at once.


class UsageError(EmotiondError):
    """Arguments that do not go together."""

    exit_code = 2


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = build_parser().parse_args(arguments)
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

    evaluate = commands.add_parser("evaluate", help="judge a .keras or .tflite network on one split")
    evaluate.add_argument("--model", type=Path, required=True, metavar="M")
    _add_data(evaluate)
    evaluate.add_argument(
        "--usage", default="PublicTest", help="Training, PublicTest, PrivateTest or test (default: %(default)s)"
    )
    evaluate.add_argument("--votes", type=Path, metavar="CSV", help="FER+ votes, for the accuracy on clear majorities")
    evaluate.add_argument(
        "--json", type=Path, metavar="PATH", help="also write the figures as JSON; - is standard output"
    )
    evaluate.set_defaults(run=_evaluate)
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
    from training import checks, data

    settings = _settings(options)
    votes = options.votes or (data.find_votes(options.data) if settings.label_share < 1 else None)
    dataset = data.load(options.data, votes)
    say(checks.class_table(dataset))
    with quiet():
        from training.train import train

    train(dataset, settings, options.out, options.resume)
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from training import data
    from training.dataset import USAGES

    if options.usage not in USAGES:
        mixed = "Training" in options.usage and options.usage != "Training"
        why = "an evaluation must not mix in Training rows" if mixed else "unknown"
        raise UsageError(f"--usage {options.usage}: {why}; give one of {', '.join(USAGES)}")
    from training import evaluate

    result = evaluate.evaluate(options.model, data.load(options.data, options.votes), options.usage)
    text = json.dumps(result, indent=2) + "\n"
    if options.json == Path("-"):
        sys.stdout.write(text)
    else:
        sys.stdout.write(evaluate.table(result) + "\n")
        if options.json:
            options.json.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
