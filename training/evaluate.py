"""Judge a network of any format on one split, with one code path for all."""

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.errors import BadDataError, ConfigError, InputNotFoundError
from edge.labels import EMOTIONS
from edge.preprocess import FACE_SIZE
from training import checks, data, metrics
from training.console import quiet
from training.dataset import USAGES, Dataset, majority_hits

PROBABILITY_SLACK = 0.02  # of their sum: what bfloat16 rounds off seven of them, with room
Predict = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""(n, 48, 48) faces to (n, 7) probabilities."""


def open_model(path: Path) -> Predict:
    """The network in a `.keras` or `.tflite` file; TFLite runs on the daemon's own code.

    Raises InputNotFoundError, BadDataError or ConfigError, naming the file and what was expected; what it predicts may
    raise BadDataError too.
    """
    if not path.is_file():
        raise InputNotFoundError(f"{path}: model not found")
    if path.suffix == ".tflite":
        return _open_tflite(path)
    if path.suffix == ".keras":
        return _open_keras(path)
    raise BadDataError(f"{path}: a model must be a .keras or a .tflite file")


def _open_tflite(path: Path) -> Predict:
    from edge.classifier import TfliteClassifier

    try:
        classifier = TfliteClassifier(path)
    except ConfigError as error:
        setting, problem = str(error).split(": ", 1)
        if setting != "model.path":  # no runtime is installed, say
            raise
        raise BadDataError(problem) from error  # nobody has named the daemon's setting
    return lambda images: np.stack([scores.values for scores in classifier.classify(list(images))])


def load_keras(path: Path) -> Any:
    """The keras.Model in a file, checked to map faces to emotions. Raises InputNotFoundError or BadDataError."""
    if not path.is_file():
        raise InputNotFoundError(f"{path}: model not found")
    if path.suffix != ".keras":
        raise BadDataError(f"{path}: must be a .keras file, as training leaves it in a run's folder")
    with quiet():  # Keras imports TensorFlow, if that is its backend, as late as it can
        import keras

        try:
            model = keras.models.load_model(path, compile=False)
        except (ValueError, TypeError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            reason = str(error).splitlines()[0]
            raise BadDataError(f"{path}: not a Keras model that can be loaded: {reason}") from error
    if model.input_shape != (None, FACE_SIZE, FACE_SIZE, 1) or model.output_shape != (None, len(EMOTIONS)):
        raise BadDataError(
            f"{path}: maps {model.input_shape} to {model.output_shape}, expected "
            f"(None, {FACE_SIZE}, {FACE_SIZE}, 1) to (None, {len(EMOTIONS)})"
        )
    return model


def _open_keras(path: Path) -> Predict:
    model = load_keras(path)

    def predict(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        scores = model.predict(images[..., None].astype(np.float32), batch_size=256, verbose=0)
        return _probabilities(np.asarray(scores, np.float32), path)

    return predict


def _probabilities(scores: npt.NDArray[np.float32], path: Path) -> npt.NDArray[np.float32]:
    """The (n, 7) scores that the network in a file gave. Raises BadDataError for logits, NaN and the like."""
    # Written so that NaN fails.
    sound = (np.abs(scores.sum(axis=1) - 1) < PROBABILITY_SLACK) & (scores >= 0).all(axis=1)
    if not sound.all():
        first = " ".join(f"{score:.3g}" for score in scores[sound.argmin()])
        raise BadDataError(f"{path}: gives no probabilities, but {first}; end it in a softmax")
    return scores


def evaluate(model: Path, dataset: Dataset, usage: str) -> dict[str, Any]:
    """What `metrics.summarize` tells about one usage, with the file's hash; with votes also the majority accuracy.

    Raises BadDataError for a usage without rows.
    """
    judged = dataset.split(usage)
    scores = open_model(model)(judged.images)
    result = metrics.summarize(scores, judged.labels) | {
        "usage": usage,
        "model": model.name,
        "model_sha256": data.file_sha256(model),
        "copies_of_training_rows": _copies(dataset, judged) if usage != "Training" else len(judged),
    }
    if judged.votes is not None:
        hits = majority_hits(scores.argmax(axis=1), judged.votes)
        right, count = int(hits.sum()), len(hits)
        result |= {"majority_accuracy": right / count if count else None, "majority_n": count}
        result["intervals"]["majority_accuracy"] = metrics.wilson(right, count)
    return result


def _copies(dataset: Dataset, judged: Dataset) -> int:
    """Rows of an evaluation whose picture is a Training row too. `train` leaves those Training rows out."""
    training = dataset.images[dataset.usages == USAGES.index("Training")]
    learned = set(checks.fingerprints(training))
    return sum(digest in learned for digest in checks.fingerprints(judged.images))


def table(result: dict[str, Any]) -> str:
    """An evaluation as text."""
    intervals = result["intervals"]
    lines = [f"{'':10}{'precision':>10}{'recall':>9}{'F1':>9}{'rows':>8}   {'95 % of recall':>16}{'of F1':>18}"]
    for emotion, entry in result["per_class"].items():
        cells = [f"{entry[key]:.1%}" if entry[key] is not None else "-" for key in ("precision", "recall", "f1")]
        within = [_span(intervals["per_class"][emotion][key]) for key in ("recall", "f1")]
        lines.append(
            f"{emotion:10}{cells[0]:>10}{cells[1]:>9}{cells[2]:>9}{entry['n']:8,}   {within[0]:>16}  {within[1]:>16}"
        )
    lines.append(
        f"{result['model']} on {result['n']:,} rows of {result['usage']}: accuracy {result['accuracy']:.2%} "
        f"({_span(intervals['accuracy'])}), macro F1 {result['macro_f1']:.3f} "
        f"({_span(intervals['macro_f1'], '.3f')}), "
        f"calibration error {result['ece']:.3f}"
    )
    if result.get("majority_accuracy") is not None:
        share, count, within = result["majority_accuracy"], result["majority_n"], intervals["majority_accuracy"]
        lines.append(f"accuracy on the {count:,} rows with a clear FER+ majority: {share:.2%} ({_span(within)})")
    if result["usage"] == "Training":
        lines.append("these rows were learned from: this is no measure of how good the network is")
    elif result["copies_of_training_rows"]:
        copies = result["copies_of_training_rows"]
        lines.append(f"{copies} of these pictures are Training rows too; `train` does not learn from those rows")
    return "\n".join(lines)


def _span(interval: list[float] | None, form: str = ".1%") -> str:
    return "-" if interval is None else f"{interval[0]:{form}} to {interval[1]:{form}}"
