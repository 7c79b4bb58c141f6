"""What is wrong with a data set: exact copies within and across splits; and how its classes are spread."""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge.labels import EMOTIONS
from training.dataset import USAGES, Dataset


def fingerprints(images: npt.NDArray[np.uint8]) -> list[bytes]:
    """One hash per picture; equal for exact copies only."""
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]


@dataclass(frozen=True)
class Duplicates:
    """Exact copies of pictures in a data set."""

    within: dict[str, int]
    """Usage to rows that repeat an earlier row of the same usage."""
    conflicting: int
    """Of those, rows whose label differs from the first one's."""
    across: int
    """Training rows that an evaluation split holds too."""
    redundant: npt.NDArray[np.bool_]
    """(n,) Training rows that must not be learned from: a repeat, or a copy of an evaluation row."""


def find_duplicates(dataset: Dataset) -> Duplicates:
    """Compare every picture with every other one, by hash."""
    training = USAGES.index("Training")
    prints = fingerprints(dataset.images)
    evaluated = {digest for digest, usage in zip(prints, dataset.usages, strict=True) if usage != training}
    first: dict[tuple[int, bytes], int] = {}
    within = dict.fromkeys(USAGES, 0)
    redundant = np.zeros(len(dataset), bool)
    conflicting = across = 0
    for index, (digest, usage) in enumerate(zip(prints, dataset.usages, strict=True)):
        earlier = first.setdefault((int(usage), digest), index)
        if earlier != index:
            within[USAGES[usage]] += 1
            conflicting += int(dataset.labels[earlier] != dataset.labels[index])
            redundant[index] = usage == training
        if usage == training and digest in evaluated:
            across += 1
            redundant[index] = True
    return Duplicates({name: count for name, count in within.items() if count}, conflicting, across, redundant)


def class_table(dataset: Dataset) -> str:
    """Rows per emotion and usage, as text."""
    present = [index for index in range(len(USAGES)) if (dataset.usages == index).any()]
    lines = [f"{'':10}" + "".join(f"{USAGES[index]:>13}" for index in present)]
    counts = [np.bincount(dataset.labels[dataset.usages == index], minlength=len(EMOTIONS)) for index in present]
    for label, emotion in enumerate(EMOTIONS):
        lines.append(f"{emotion:10}" + "".join(f"{column[label]:13,}" for column in counts))
    lines.append(f"{'all':10}" + "".join(f"{column.sum():13,}" for column in counts))
    return "\n".join(lines)


def describe(dataset: Dataset) -> str:
    """What the checks found, as text."""
    found = find_duplicates(dataset)
    within = ", ".join(f"{count:,} in {usage}" for usage, count in found.within.items()) or "none"
    training = int((dataset.usages == USAGES.index("Training")).sum())
    return (
        f"skipped rows (no picture, or one grey level): {', '.join(map(str, dataset.skipped)) or 'none'}\n"
        f"exact repeats of an earlier picture of the same split: {within}; {found.conflicting:,} with another label\n"
        f"Training pictures that a test holds too: {found.across:,}\n"
        f"Training rows to learn from and validate on: {training - int(found.redundant.sum()):,} of {training:,}"
    )
