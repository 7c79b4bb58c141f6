"""What people wait for: `emotiond image` on many pictures, and `emotiond video` beside decoding alone."""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks import clips
from benchmarks.measure import ROOT, in_turn, ratio, stamp
from benchmarks.worker import Worker
from edge.errors import EmotiondError

ROUNDS, PICTURES = 4, 240
SIZE = (640, 480)  # px, of the pictures
FRAMES_MIN = 2000  # of a video: short clips are played again and again, so that the start does not count
TURN_S = 1.0  # at least, of decoding alone
PORTRAIT = ROOT / "edge/assets/portrait.jpg"


def run(
    named: Sequence[str] = (), overrides: Sequence[str] = (), rounds: int = ROUNDS, limit: int = PICTURES
) -> dict[str, Any]:
    """Measure; returns `image`, `clips`, a row each, and `total`, medians over the clips.

    limit: how many pictures, taken evenly from the clips. Raises EmotiondError if a command fails.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emotiond-bench-")))
        chosen = stack.enter_context(clips.opened(named))
        image = _image(write_pictures(folder / "pictures", chosen, limit), overrides, rounds)
        decode = stack.enter_context(Worker("decode"))
        video = stack.enter_context(Worker("video", overrides=list(overrides), folder=str(folder)))
        rows = [_video(decode, video, clip, folder, rounds) for clip in clips.each(chosen)]
    total = {key: float(np.median([row[key] for row in rows])) for key in ("over_decode", "copy_over_decode")}
    return {**stamp(), "overrides": list(overrides), "image": image, "clips": rows, "total": total}


def _image(folder: Path, overrides: Sequence[str], rounds: int) -> dict[str, Any]:
    """`pictures_per_s` of the whole command; `start_s` is what it takes for a single picture."""
    table = folder.with_suffix(".csv")
    commands = {"many": (folder, "--output-csv", table), "one": (PORTRAIT,)}
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for name in in_turn(list(commands), rounds):
        options = [text for override in overrides for text in ("--set", override)]
        command = [sys.executable, "-m", "edge", "image", *map(str, commands[name]), *options]
        began_at = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        taken[name].append(time.perf_counter() - began_at)
        if done.returncode:
            raise EmotiondError(f"emotiond image: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    pictures = len(list(folder.iterdir()))
    return {
        "pictures": pictures,
        "faces": len(table.read_text().splitlines()) - 1,
        "pictures_per_s": pictures / float(np.median(taken["many"])),
        "start_s": float(np.median(taken["one"])),
    }


def _video(decode: Worker, video: Worker, clip: clips.Clip, folder: Path, rounds: int) -> dict[str, Any]:
    path = str(_lengthened(clip.path, folder / f"long{clip.path.suffix}"))
    turns = {
        "decode": lambda: decode.turn(clip=path, seconds=TURN_S),
        "tables": lambda: video.turn(clip=path, copy=False),
        "copy": lambda: video.turn(clip=path, copy=True),
    }
    fps: dict[str, list[float]] = {name: [] for name in turns}
    codec = ""
    for name in in_turn(list(turns), rounds):
        measured = turns[name]()
        fps[name].append(measured["frames"] / measured["seconds"])
        codec = measured.get("codec") or codec
    median = {name: float(np.median(values)) for name, values in fps.items()}
    return {
        "clip": clip.name,
        "decode_fps": median["decode"],
        "video_fps": median["tables"],
        "copy_fps": median["copy"],
        "codec": codec,
        "over_decode": ratio(median["tables"], median["decode"]),
        "copy_over_decode": ratio(median["copy"], median["decode"]),
    }


def _lengthened(path: Path, target: Path) -> Path:
    """The clip often enough to have `FRAMES_MIN` frames, packed as it was; as it is where there is no ffmpeg for it."""
    frames = sum(1 for _ in clips.pictures(path))
    if frames >= FRAMES_MIN or shutil.which("ffmpeg") is None:
        return path
    repeat = ("-stream_loop", str(FRAMES_MIN // frames))
    command = ["ffmpeg", "-v", "error", "-y", *repeat, "-i", str(path), "-map", "0:v", "-c", "copy", str(target)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    whole = done.returncode == 0 and sum(1 for _ in clips.pictures(target)) >= FRAMES_MIN
    return target if whole else path


def write_pictures(folder: Path, chosen: Sequence[clips.Clip], count: int) -> Path:
    """So many JPEGs of 640x480, from all of the clips alike."""
    folder.mkdir()
    share, more = divmod(count, len(chosen))
    wanted = chain.from_iterable(evenly(clip.path, share + (place < more)) for place, clip in enumerate(chosen))
    for number, image in enumerate(wanted):
        cv2.imwrite(str(folder / f"{number:05d}.jpg"), _filling(image))
    return folder


def evenly(path: Path, count: int) -> Iterator[np.ndarray]:
    """So many frames of a clip, evenly spread; from its beginning again if it has fewer.

    Read twice, because half a minute of 1280x720 is gigabytes.
    """
    frames = sum(1 for _ in clips.pictures(path))
    if frames < count:
        return islice(chain.from_iterable(map(clips.pictures, repeat(path))), count)
    wanted = {round(place * frames / count) for place in range(count)}
    return (image for number, image in enumerate(clips.pictures(path)) if number in wanted)


def _filling(image: np.ndarray) -> np.ndarray:
    """Scaled so that it fills `SIZE`; what stands out is cut off."""
    height, width = image.shape[:2]
    scale = max(SIZE[0] / width, SIZE[1] / height)
    scaled = cv2.resize(image, (max(SIZE[0], round(width * scale)), max(SIZE[1], round(height * scale))))
    top, left = (scaled.shape[0] - SIZE[1]) // 2, (scaled.shape[1] - SIZE[0]) // 2
    return scaled[top : top + SIZE[1], left : left + SIZE[0]]
