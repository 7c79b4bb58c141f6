"""Made data for the tests of training and convert: seven patterns, never a picture of FER2013."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

SHARED = Path(os.environ.get("EMOTIOND_SHARED", Path(__file__).resolve().parents[2] / "shared"))
FER2013 = SHARED / "data" / "fer2013"
# FER+ columns in the order of EMOTIONS.
VOTE_COLUMN = (4, 5, 6, 1, 3, 2, 0)
VOTES_HEADER = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
Row = tuple[int, npt.NDArray[np.uint8], str]


def pattern(label: int, seed: int) -> npt.NDArray[np.uint8]:
    """(48, 48) uint8 stripes whose direction is the label, with noise."""
    random = np.random.default_rng([label, seed])
    angle = label * np.pi / 7
    down, right = np.mgrid[0:48, 0:48]
    waves = np.sin((down * np.sin(angle) + right * np.cos(angle)) / 3 + random.uniform(0, 6))
    return np.clip(128 + 90 * waves + random.normal(0, 20, (48, 48)), 0, 255).astype(np.uint8)


def rows(training: int, public: int, private: int = 0) -> list[Row]:
    """Rows of each usage, the labels taking turns."""
    counts = {"Training": training, "PublicTest": public, "PrivateTest": private}
    return [
        (index % 7, pattern(index % 7, 1000 * number + index), usage)
        for number, (usage, count) in enumerate(counts.items())
        for index in range(count)
    ]


def write_csv(path: Path, content: Sequence[Row]) -> Path:
    """The official CSV format."""
    lines = [f"{label},{' '.join(map(str, image.ravel()))},{usage}" for label, image, usage in content]
    path.write_text("\n".join(["emotion,pixels,Usage", *lines]) + "\n")
    return path


def write_votes(path: Path, content: Sequence[Row]) -> Path:
    """FER+'s format; all ten taggers see the label."""
    lines = [VOTES_HEADER]
    for index, (label, _image, usage) in enumerate(content):
        votes = ["0"] * 10
        votes[VOTE_COLUMN[label]] = "10"
        lines.append(f"{usage},fer{index:07}.png,{','.join(votes)}")
    path.write_text("\n".join(lines) + "\n")
    return path
