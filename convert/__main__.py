"""`python -m convert`: a trained `.keras` network to float32.tflite, int8.tflite, golden.npz and parity.json."""

import argparse
import json
import os
import sys
from pathlib import Path

from edge.errors import BadDataError
from training.console import quiet, run_command, say

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
    parser.add_argument("--min-agreement", type=float, default=0.98, help="top-1 agreement below which to fail")
    parser.add_argument("--max-drop", type=float, default=0.005, help="loss of accuracy above which to fail")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def convert(options: argparse.Namespace) -> int:
    """Convert, write the files, compare them, and fail if int8 costs too much."""
    from training import data
    from training.dataset import USAGES

    dataset = data.load(options.data)
    usage = options.usage or dataset.default_test
    if usage not in USAGES:
        raise BadDataError(f"--usage {usage}: unknown; give one of {', '.join(USAGES)}")
    compared = dataset.split(usage)

    # model.export writes a SavedModel for TFLite on this backend only.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    with quiet():
        from convert import calibration, golden, parity, quantize

    with quiet():
        model = quantize.load_float32(options.model)
    chosen = calibration.find(dataset)
    if chosen is None:
        say(f"this data lacks rows of {calibration.INDICES.name}: drawing calibration rows anew")
        chosen = calibration.draw(dataset)
    with quiet():
        float32, int8 = quantize.to_tflite(model, lambda: calibration.inputs(chosen.images))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "float32.tflite").write_bytes(float32)
    (options.out / "int8.tflite").write_bytes(int8)
    with quiet():
        golden.write(options.out)
        measured = parity.measure(
            options.out / "float32.tflite", options.out / "int8.tflite", compared.images, compared.labels
        )
    measured |= {"usage": usage, "calibration_rows": len(chosen)}
    verdict = parity.judge(measured, parity.Limits(options.min_agreement, options.max_drop))
    (options.out / "parity.json").write_text(json.dumps(verdict, indent=2) + "\n")
    say(
        f"int8 {verdict['accuracy']['int8']:.2%}, float32 {verdict['accuracy']['float32']:.2%} of {verdict['n']:,}; "
        f"top-1 agreement {verdict['top1_agreement']:.2%}; int8 file {len(int8) / 1000:.0f} kB -> {options.out}"
    )
    parity.require(verdict)
    return 0


if __name__ == "__main__":
    sys.exit(main())
