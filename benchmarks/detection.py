"""What sweeping and following loses against a full Haar search of every frame, and how steady its boxes are."""

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from benchmarks import clips
from benchmarks.contenders import NAIVE_NEIGHBORS, NAIVE_SCALE
from benchmarks.measure import ratio, stamp
from edge.app import build_detector
from edge.config import HaarConfig, MtcnnConfig
from edge.errors import ConfigError
from edge.pipeline import FaceDetector
from edge.preprocess import as_grey
from edge.records import Box, Frame

# The reference: thorough, at the frame's own size. OpenCV's default step, and one neighbour more than its default.
SCALE_FACTOR, MIN_NEIGHBORS = 1.1, 4
SAME_PLACE = 0.4  # intersection over union from which two boxes show one face; Haar boxes differ by 10 % and more
# A face is what the reference finds again and again: its single hits on shirts and hands flicker.
LINK, GAP_MAX_S = 0.3, 0.5
HITS_MIN, DENSITY_MIN = 5, 0.5
DETECTOR_EVERY = 10  # frames: detectors are compared on one of so many, because MTCNN takes long
SECOND_OPINION = "mtcnn"  # of what a face is: it shares nothing with Haar, neither features nor training pictures


@dataclass(slots=True)
class Chain:
    """A place where a search found something over successive frames."""

    boxes: dict[int, Box] = field(default_factory=dict)
    """By frame number."""

    @property
    def is_face(self) -> bool:
        """Whether it was found often and steadily enough to be one."""
        first, last = min(self.boxes), max(self.boxes)
        return len(self.boxes) >= HITS_MIN and len(self.boxes) >= DENSITY_MIN * (last - first + 1)

    def at(self, frame: int, beyond: int = 0) -> Box | None:
        """Its box in a frame, taken from the nearest hit where it was missed; None outside its time by `beyond`."""
        if not min(self.boxes) - beyond <= frame <= max(self.boxes) + beyond:
            return None
        return self.boxes[min(self.boxes, key=lambda hit: abs(hit - frame))]


class Contender:
    """A detector of the daemon's, searching single frames whole, beside the reference."""

    def __init__(self, name: str, detector: FaceDetector | None) -> None:
        self.name = name
        self._detector = detector
        self._found: dict[int, list[Box]] = {}  # of this clip, by frame number
        self._times_ms: list[float] = []
        self._hits = self._reference = self._elsewhere = 0

    @property
    def found(self) -> Mapping[int, list[Box]]:
        """Its boxes in each frame of the clip that it has searched, by frame number."""
        return self._found

    def search(self, number: int, frame: Frame) -> None:
        """Take a frame of the clip."""
        if self._detector is not None:
            began_at = time.perf_counter()
            self._found[number] = [face.box for face in self._detector.detect(frame)]
            self._times_ms.append((time.perf_counter() - began_at) * 1000)

    def judge(self, faces: Sequence[Chain], gap: int) -> None:
        """The clip ended, and these are its faces."""
        for number, found in self._found.items():
            boxes = [chain.boxes[number] for chain in faces if number in chain.boxes]
            self._reference += len(boxes)
            self._hits += sum(any(box.overlap(other) >= SAME_PLACE for other in found) for box in boxes)
            places = [place for chain in faces if (place := chain.at(number, gap)) is not None]
            self._elsewhere += sum(all(box.overlap(place) < LINK for place in places) for box in found)
        self._found.clear()

    def row(self) -> dict[str, Any]:
        """What came of all clips."""
        frames = len(self._times_ms)
        return {
            "detector": self.name,
            "frames": frames,
            "recall": self._hits / self._reference if self._reference else None,
            "elsewhere_per_100_frames": 100 * self._elsewhere / frames if frames else None,
            "median_ms": float(np.median(self._times_ms)) if frames else None,
        }


def _contenders(overrides: Sequence[str], mtcnn: bool) -> list[Contender]:
    config = clips.settings("builtin", overrides).detector
    made = [Contender("haar", build_detector(config if isinstance(config, HaarConfig) else HaarConfig()))]
    if mtcnn:
        try:
            made.append(Contender("mtcnn", build_detector(MtcnnConfig(kind="mtcnn", min_face=config.min_face))))
        except ConfigError:
            made.append(Contender("mtcnn: not installed (extra mtcnn)", None))
    return made


def run(named: Sequence[str], overrides: Sequence[str] = (), mtcnn: bool = True) -> dict[str, Any]:
    """Compare on every clip; returns `clips`, a row each, `total` over all frames, and `detectors`."""
    contenders = _contenders(overrides, mtcnn)
    with clips.opened(named) as chosen:
        rows = [{"clip": clip.name, **_compare(clip, overrides, contenders)} for clip in clips.each(chosen)]
    return {
        **stamp(),
        "overrides": list(overrides),
        "method": {
            "reference": f"Haar, full size, {SCALE_FACTOR}/{MIN_NEIGHBORS}",
            "naive": f"Haar, full size, {NAIVE_SCALE}/{NAIVE_NEIGHBORS}",
            "same_place_iou": SAME_PLACE,
            "second_opinion": SECOND_OPINION if any(one.name == SECOND_OPINION for one in contenders) else None,
            "detectors_on_one_frame_of": DETECTOR_EVERY,
        },
        "clips": [_row(row) for row in rows],
        "total": _row({"clip": "total", **_sum(rows)}),
        "detectors": [contender.row() for contender in contenders],
    }


def _compare(clip: clips.Clip, overrides: Sequence[str], contenders: Sequence[Contender]) -> dict[str, Any]:
    config = clips.settings(clip.path, overrides)
    full = _Haar(SCALE_FACTOR, MIN_NEIGHBORS, config.detector.min_face)
    naive = _Haar(NAIVE_SCALE, NAIVE_NEIGHBORS, None)
    reported: list[dict[int, Box]] = []  # frame by frame, box of each track
    found: list[list[Box]] = []
    naively: list[list[Box]] = []
    times: list[float] = []
    for sight in clips.sights(config):
        reported.append({reading.track.id: reading.track.box for reading in sight.readings})
        found.append(full.search(sight.frame))
        naively.append(naive.search(sight.frame))
        if len(times) % DETECTOR_EVERY == 0:
            for contender in contenders:
                contender.search(len(times), sight.frame)
        times.append(sight.frame.media_time)
    fps = (len(times) - 1) / max(times[-1] - times[0], 1e-6) if len(times) > 1 else 1.0
    gap = max(1, round(GAP_MAX_S * fps))
    counts = compare(reported, found, naively, gap, _second_opinion(contenders))
    for contender in contenders:
        contender.judge([chain for chain in link(found, gap) if chain.is_face], gap)
    return counts


def _second_opinion(contenders: Sequence[Contender]) -> Mapping[int, list[Box]]:
    return next((contender.found for contender in contenders if contender.name == SECOND_OPINION), {})


def compare(
    reported: Sequence[dict[int, Box]],
    found: Sequence[list[Box]],
    naively: Sequence[list[Box]],
    gap: int,
    seen: Mapping[int, list[Box]],
) -> dict[str, Any]:
    """Count. reported: what the daemon shows per frame, by track; found, naively: what the two searches find.

    gap: frames for which a face may be missed and still be the same. seen: what a second detector finds, by the
    number of each frame that it has searched; what the reference alone takes for a face there is none.
    """
    steady = [chain for chain in link(found, gap) if chain.is_face]
    faces = [chain for chain in steady if _is_confirmed(chain, seen)]
    shown = [list(boxes.values()) for boxes in reported]
    refuted = [chain for chain in steady if chain not in faces]
    hits, all_hits = _hits(faces, reported), _hits(steady, reported)
    return {
        "frames": len(reported),
        "faces": len(faces),
        "refuted": len(refuted),
        "reference_boxes": len(hits),
        "recalled": sum(track is not None for *_, track in hits),
        "all_reference_boxes": len(all_hits),
        "all_recalled": sum(track is not None for *_, track in all_hits),
        "naive_recalled": sum(any(box.overlap(b) >= SAME_PLACE for b in naively[number]) for number, box, _ in hits),
        # After its first report a face is followed; before, it is being confirmed.
        **_after_first_report(faces, reported),
        "boxes": sum(map(len, shown)),
        "false": _false(shown, _without(refuted, found), faces, gap),
        "reference_false": _false(found, None, faces, gap),
        "naive_false": _false(naively, None, faces, gap),
        "false_tracks": _false_tracks(reported, faces, gap),
        "tracks": len({track for boxes in reported for track in boxes}),
        "id_switches": sum(_switches(chain, reported) for chain in faces),
        "jitter": [step for boxes in _by_track(reported).values() for step in jitter(boxes)],
        "reference_jitter": [step for chain in faces for step in jitter(chain.boxes)],
    }


def _is_confirmed(chain: Chain, seen: Mapping[int, list[Box]]) -> bool:
    """Whether a second detector finds it in any frame where it was asked; true where it was not."""
    asked = chain.boxes.keys() & seen.keys()
    return not asked or any(chain.boxes[n].overlap(box) >= SAME_PLACE for n in asked for box in seen[n])


def _without(chains: Sequence[Chain], found: Sequence[list[Box]]) -> list[list[Box]]:
    """The boxes of each frame that are in none of these."""
    return [
        [box for box in boxes if all(chain.boxes.get(number) is not box for chain in chains)]
        for number, boxes in enumerate(found)
    ]


def _hits(faces: Sequence[Chain], reported: Sequence[dict[int, Box]]) -> list[tuple[int, Box, int | None]]:
    """Frame, box and the track that shows it, of every box of the reference on a face."""
    return [
        (number, box, _best(box, reported[number])) for chain in faces for number, box in sorted(chain.boxes.items())
    ]


def link(found: Sequence[list[Box]], gap: int) -> list[Chain]:
    """Join boxes of successive frames that overlap, best pairs first."""
    chains: list[Chain] = []
    for number, boxes in enumerate(found):
        open_chains = [chain for chain in chains if number - max(chain.boxes) <= gap]
        pairs = [
            (chain.boxes[max(chain.boxes)].overlap(box), row, column)
            for row, chain in enumerate(open_chains)
            for column, box in enumerate(boxes)
        ]
        free_rows, free_columns = set(range(len(open_chains))), set(range(len(boxes)))
        for shared, row, column in sorted(pairs, reverse=True):
            if shared >= LINK and row in free_rows and column in free_columns:
                open_chains[row].boxes[number] = boxes[column]
                free_rows.remove(row)
                free_columns.remove(column)
        chains += [Chain({number: boxes[column]}) for column in sorted(free_columns)]
    return chains


def jitter(boxes: dict[int, Box]) -> list[float]:
    """How far a box leaves a straight course, in shares of its width, for every three frames in a row.

    A face that moves evenly has none; centre and width count.
    """
    steps = []
    for number, b in boxes.items():
        a, c = boxes.get(number - 1), boxes.get(number + 1)
        if a is not None and c is not None:
            bends = np.array([_state(a), _state(c)]).mean(axis=0) - _state(b)
            steps.append(float(np.linalg.norm(bends) / b.w))
    return steps


def _state(box: Box) -> np.ndarray:
    return np.array([box.x + box.w / 2, box.y + box.h / 2, box.w])


def _best(box: Box, tracks: dict[int, Box]) -> int | None:
    """The track that shows the face of a box."""
    shared, track = max(((box.overlap(shown), track) for track, shown in tracks.items()), default=(0.0, 0))
    return track if shared >= SAME_PLACE else None


def _after_first_report(faces: Sequence[Chain], reported: Sequence[dict[int, Box]]) -> dict[str, int]:
    boxes, recalled, waits = 0, 0, 0
    for chain in faces:
        seen = [(number, _best(box, reported[number])) for number, box in sorted(chain.boxes.items())]
        first = next((number for number, track in seen if track is not None), None)
        waits += (first if first is not None else max(chain.boxes) + 1) - min(chain.boxes)
        later = [track for number, track in seen if first is not None and number >= first]
        boxes += len(later)
        recalled += sum(track is not None for track in later)
    return {"boxes_after_report": boxes, "recalled_after_report": recalled, "frames_to_report": waits}


def _false(shown: Sequence[list[Box]], also_found: Sequence[list[Box]] | None, faces: Sequence[Chain], gap: int) -> int:
    """Boxes where there is no face, nor anything that the reference found in that very frame."""
    count = 0
    for number, boxes in enumerate(shown):
        places = [box for chain in faces if (box := chain.at(number, gap)) is not None]
        places += also_found[number] if also_found is not None else []
        count += sum(all(box.overlap(place) < LINK for place in places) for box in boxes)
    return count


def _false_tracks(reported: Sequence[dict[int, Box]], faces: Sequence[Chain], gap: int) -> int:
    """Tracks that were never on a face."""
    true = {
        track
        for number, boxes in enumerate(reported)
        for track, box in boxes.items()
        for chain in faces
        if (place := chain.at(number, gap)) is not None and box.overlap(place) >= LINK
    }
    return len({track for boxes in reported for track in boxes} - true)


def _switches(chain: Chain, reported: Sequence[dict[int, Box]]) -> int:
    """How often the track that shows a face is another one than before."""
    ids = [track for number, box in sorted(chain.boxes.items()) if (track := _best(box, reported[number])) is not None]
    return sum(a != b for a, b in itertools.pairwise(ids))


def _by_track(reported: Sequence[dict[int, Box]]) -> dict[int, dict[int, Box]]:
    tracks: dict[int, dict[int, Box]] = {}
    for number, boxes in enumerate(reported):
        for track, box in boxes.items():
            tracks.setdefault(track, {})[number] = box
    return tracks


def _sum(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    total = {key: rows[0][key] for key in rows[0] if key != "clip"}
    for row in rows[1:]:
        total = {key: value + row[key] for key, value in total.items()}
    return total


def _row(counts: dict[str, Any]) -> dict[str, Any]:
    """Counts as what is asked for."""
    frames = counts["frames"]
    return {
        "clip": counts["clip"],
        "frames": frames,
        "faces": counts["faces"],
        "refuted": counts["refuted"],
        "recall": ratio(counts["recalled"], counts["reference_boxes"]) if counts["reference_boxes"] else None,
        "recall_with_refuted": (
            ratio(counts["all_recalled"], counts["all_reference_boxes"]) if counts["all_reference_boxes"] else None
        ),
        "recall_after_report": (
            counts["recalled_after_report"] / counts["boxes_after_report"] if counts["boxes_after_report"] else None
        ),
        "naive_recall": counts["naive_recalled"] / counts["reference_boxes"] if counts["reference_boxes"] else None,
        "frames_to_report": counts["frames_to_report"] / counts["faces"] if counts["faces"] else None,
        "false_per_100_frames": 100 * counts["false"] / frames,
        "reference_false_per_100_frames": 100 * counts["reference_false"] / frames,
        "naive_false_per_100_frames": 100 * counts["naive_false"] / frames,
        "tracks": counts["tracks"],
        "false_tracks": counts["false_tracks"],
        "id_switches": counts["id_switches"],
        "jitter_percent": 100 * float(np.mean(counts["jitter"])) if counts["jitter"] else None,
        "reference_jitter_percent": (
            100 * float(np.mean(counts["reference_jitter"])) if counts["reference_jitter"] else None
        ),
    }


class _Haar:
    """A plain search of the whole frame."""

    def __init__(self, scale_factor: float, min_neighbors: int, min_face: int | None) -> None:
        self._cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
        self._options: dict[str, Any] = {"scaleFactor": scale_factor, "minNeighbors": min_neighbors}
        if min_face is not None:
            self._options["minSize"] = (min_face, min_face)

    def search(self, frame: Frame) -> list[Box]:
        return [Box(*map(int, box)) for box in self._cascade.detectMultiScale(as_grey(frame.image), **self._options)]
