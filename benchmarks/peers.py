"""Other packages that read emotions, on the same clips and pictures. They run in environments of their own."""

import itertools
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import clips
from benchmarks.measure import in_turn, ratio, stamp
from benchmarks.peer_worker import PEERS
from benchmarks.pipeline import NAIVE_FRAMES, TURN_S
from benchmarks.worker import Worker
from edge.errors import InputNotFoundError
from edge.labels import EMOTIONS
from training.metrics import wilson

ROUNDS = 3
SCRIPT = Path(__file__).with_name("peer_worker.py")


def run(
    named: Sequence[str],
    pythons: Sequence[Path],
    data: Path | None = None,
    limit: int | None = None,
    rounds: int = ROUNDS,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Frames a second on every clip, and with `data` (FER2013) the accuracy on PublicTest's pictures.

    pythons: interpreters in which peers are installed; this one's, if none is named. Raises InputNotFoundError if no
    peer is there.
    """
    with ExitStack() as stack:
        chosen = stack.enter_context(clips.opened(named))
        workers = {"emotiond": stack.enter_context(Worker("pipeline", overrides=list(overrides)))}
        versions: dict[str, str] = {}
        for python, name in itertools.product(pythons or [None], PEERS):
            worker = stack.enter_context(Worker(name, python, SCRIPT))
            if "missing" not in worker.about and name not in workers:
                workers[name], versions[name] = worker, worker.about["version"]
        if not versions:
            raise InputNotFoundError(
                "no peer is installed there; make an environment, pip install fer in it, and name its python: --python"
            )
        result: dict[str, Any] = {**stamp(), "versions": versions, "clips": []}
        for clip in clips.each(chosen):
            result["clips"].append({"clip": clip.name, **_speed(workers, clip, rounds)})
        if data is not None:
            result["pictures"] = _accuracy(workers, data, limit)
    return result


def _speed(workers: dict[str, Worker], clip: clips.Clip, rounds: int) -> dict[str, Any]:
    fps: dict[str, list[float]] = {name: [] for name in workers}
    faces: dict[str, list[float]] = {name: [] for name in workers}
    for number, name in enumerate(in_turn(list(workers), rounds)):
        wishes: dict[str, Any] = {"clip": str(clip.path)}
        wishes |= {"seconds": TURN_S} if name == "emotiond" else {"frames_max": NAIVE_FRAMES, "offset": number}
        measured = workers[name].turn(**wishes)
        if measured["frames"]:
            fps[name].append(measured["frames"] / measured["seconds"])
            faces[name].append(measured["faces"])
    row: dict[str, Any] = {}
    for name in workers:
        row[f"{name} fps"] = float(np.median(fps[name])) if fps[name] else None
        row[f"{name} faces"] = float(np.mean(faces[name])) if faces[name] else None
    for name in list(workers)[1:]:
        row[f"over {name}"] = ratio(row["emotiond fps"], row[f"{name} fps"])
    return row


def _accuracy(workers: dict[str, Worker], data: Path, limit: int | None) -> list[dict[str, Any]]:
    """Every package on the same cut pictures: right answers by FER2013's labels, with an interval of 95 %."""
    from edge.classifier import TfliteClassifier
    from training.data import load

    test = load(data).split("PublicTest")
    images, labels = test.images[:limit], [EMOTIONS[label] for label in test.labels[:limit]]
    told = {"emotiond": [scores.top[0] for scores in TfliteClassifier().classify(list(images))]}
    with tempfile.TemporaryDirectory(prefix="emotiond-bench-") as folder:
        path = Path(folder) / "pictures.npy"
        np.save(path, images)
        for name, worker in workers.items():
            if name != "emotiond":
                told[name] = worker.turn(pictures=str(path))["told"]
    rows = []
    for name, answers in told.items():
        hits = sum(answer == label for answer, label in zip(answers, labels, strict=True))
        low, high = wilson(hits, len(labels)) or (None, None)
        rows.append({"package": name, "n": len(labels), "accuracy": hits / len(labels), "low": low, "high": high})
    return rows
