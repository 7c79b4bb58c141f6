"""Gives an annotated copy the sound of its original, by the program ffmpeg."""

import contextlib
import os
import re
import secrets
import shutil
import subprocess
from pathlib import Path

from edge.beside import NOT_THERE, Asked
from edge.videofile import is_whole

COMMAND = ("ffmpeg", "-v", "error", "-nostdin", "-y")
COPIED = ("-c:a", "copy")
ENCODED = ("-c:a", "aac", "-af", "aresample=async=1:first_pts=0")  # for containers that do not take its kind; no gaps


def add(copy: Path, original: Path, asked: Asked, frames: int, fps: float) -> str:
    """Put the sound of a video file into its finished copy; returns what there is to say of it, "" where it has none.

    asked: what `asked_for_streams` gave for the original, started. frames, fps: of the copy, whose first picture is the
    first of the original that can be decoded. Whatever goes wrong, the copy stays as it was.
    """
    code, streams = asked.answer()
    if code == NOT_THERE:
        return " without sound (the program ffmpeg would add it)"
    if "#media_type 1: audio" not in streams:
        return ""
    first_picture = re.search(r"^0, *-?\d+, *(-?\d+)", streams, re.MULTILINE)
    if first_picture is None:
        return " without its sound: ffmpeg finds no picture in it"
    return _join(Path(os.path.realpath(copy)), original, int(first_picture[1]) / 1000, frames, fps)


def asked_for_streams(original: Path) -> Asked:
    """The program ffmpeg, to be asked for the first of each stream.

    It tells what kinds there are, and when the first picture comes, in ms from the file's beginning.
    """
    # The sound may begin long before the first picture that can be decoded, as in a recording joined in the middle.
    picture = ("-map", "0:V:0", "-frames:v", "1", "-enc_time_base", "1/1000")
    sound = ("-map", "0:a?", "-frames:a", "1", "-c:a", "copy")
    return Asked([*COMMAND, "-i", f"file:{original}", *picture, *sound, "-f", "framecrc", "-"])


def _join(copy: Path, original: Path, begin_s: float, frames: int, fps: float) -> str:
    joined = copy.with_name(f".emotiond-{secrets.token_hex(8)}{copy.suffix}")
    inputs = ("-i", f"file:{copy}", "-ss", f"{begin_s:.3f}", "-i", f"file:{original}")
    output = ("-map", "0:v", "-map", "1:a", "-c:v", "copy", "-t", f"{frames / fps:.3f}")
    problem = ""
    try:
        for coder, told in ((COPIED, " with its sound"), (ENCODED, " with its sound as AAC")):
            if coder == COPIED and copy.suffix.lower() == ".avi":
                continue  # it has no times: sound that begins late, or has gaps, would come too early
            command = [*COMMAND, *inputs, *output, *coder, f"file:{joined}"]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
            problem = (done.stderr.strip().splitlines() or ["ffmpeg failed"])[-1]
            if done.returncode == 0 and is_whole(joined, frames):
                shutil.copymode(copy, joined)
                joined.replace(copy)
                return told
    except OSError as error:
        problem = error.strerror or str(error)
    finally:
        with contextlib.suppress(OSError):
            joined.unlink(missing_ok=True)
    return f" without its sound: {problem.rpartition(': ')[2]}"
