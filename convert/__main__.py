"""`python -m convert`: a trained `.keras` network to float32.tflite, int8.tflite, golden.npz and parity.json."""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import BadDataError, ConfigError
from training.console import quiet, run_command, say, writing

if TYPE_CHECKING:
    from convert.parity import Limits
    from training.dataset import Dataset

# TensorFlow is imported inside `convert`: --help and usage errors answer at once.


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = build_parser().parse_args(arguments)
    return run_command("convert", lambda: convert(options), options.debug)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m convert", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, metavar="M.keras")
    parser.add_argument("--data", type=Path, metavar="CSV_OR_DIR", help="FER2013; default: EMOTIOND_DATA")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--usage", help="rows to compare the files on; default: PublicTest, or a folder's test")
    parser.add_argument(
        "--min-agreement",
        type=_share,
        default=0.98,
        metavar="SHARE",
        help="share of faces below which to fail; default: %(default)s",
    )
    parser.add_argument(
        "--max-drop",
        type=_share,
        default=0.005,
        metavar="SHARE",
        help="of accuracy, above which to fail; default: %(default)s",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:  # written so that NaN fails
        raise argparse.ArgumentTypeError("must be a share, 0 to 1")
    return share


def convert(options: argparse.Namespace) -> int:
    """Convert, compare, write all files at once, and fail if int8 costs too much."""
    from training import data
    from training.dataset import require_usage

    require_usage(options.usage)
    dataset = data.load(options.data)
    usage = options.usage or dataset.default_test
    compared = dataset.split(usage)

    # model.export writes a SavedModel for TFLite on this backend only.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    with quiet():
        from convert import calibration, parity, quantize

    with quiet():
        model = quantize.load_float32(options.model)
    chosen = calibration.find(dataset)
    if chosen is None:
        say(f"this data lacks rows of {calibration.INDICES.name}: drawing calibration rows anew")
        chosen = calibration.draw(dataset)
    with quiet():
        float32, int8 = quantize.to_tflite(model, lambda: calibration.inputs(chosen.images))
    limits = parity.Limits(options.min_agreement, options.max_drop)
    with tempfile.TemporaryDirectory() as name:
        made = Path(name)
        (made / "float32.tflite").write_bytes(float32)
        (made / "int8.tflite").write_bytes(int8)
        _require_networks(made, options.model)
        verdict = _compare(made, compared, limits, {"usage": usage, "calibration_rows": len(chosen)})
        with writing(options.out):
            _move_in(made, options.out)
    say(
        f"int8 {verdict['accuracy']['int8']:.2%}, float32 {verdict['accuracy']['float32']:.2%} of {verdict['n']:,}; "
        f"top-1 agreement {verdict['top1_agreement']:.2%}; int8 file {len(int8) / 1000:.0f} kB -> {options.out}"
    )
    parity.require(verdict)
    return 0


def _require_networks(folder: Path, model: Path) -> None:
    """Raise BadDataError, naming the model, if the daemon's own code refuses a file made of it."""
    from edge.classifier import TfliteClassifier

    for path in (folder / "float32.tflite", folder / "int8.tflite"):
        try:
            TfliteClassifier(path)
        except ConfigError as error:
            # The settings that it speaks of, and this folder, are nothing that a person has named.
            reason = str(error).removeprefix(f"model.path: {path}: ")
            raise BadDataError(f"{model}: as {path.name}: {reason}") from error


def _compare(folder: Path, compared: "Dataset", limits: "Limits", about: dict[str, Any]) -> dict[str, Any]:
    """Write golden.npz and parity.json for the two files in the folder; returns the latter's content."""
    from convert import golden, parity

    with quiet():
        golden.write(folder)
        measured = parity.measure(folder / "float32.tflite", folder / "int8.tflite", compared.images, compared.labels)
    verdict = parity.judge(measured | about, limits)
    (folder / "parity.json").write_text(json.dumps(verdict, indent=2) + "\n")
    return verdict


def _move_in(made: Path, out: Path) -> None:
    """Put the files that were made into `out`, in place of those of an earlier conversion.

    Each is whole there before the first takes its place: a full disk must not leave files of two networks.
    """
    out.mkdir(parents=True, exist_ok=True)
    unfinished = {path.name: out / f".unfinished-{path.name}" for path in made.iterdir()}
    try:
        for name, copy in unfinished.items():
            shutil.copyfile(made / name, copy)
        for name, copy in unfinished.items():
            copy.replace(out / name)
    finally:
        for copy in unfinished.values():
            copy.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
