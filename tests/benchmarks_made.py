"""`python -m benchmarks` as a process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2

from conftest import ROOT
from edge import clip


def run(*arguments: object, code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
    )
    assert done.returncode == code, done.stderr
    return done


def measured(path: Path, *arguments: object, **env: str) -> dict:
    """The JSON that a command writes."""
    run(*arguments, "--json", path, **env)
    return json.loads(path.read_text())


def write_short_clip(path: Path) -> Path:
    """Two seconds from the middle of the built-in clip: one face all the time."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), clip.FPS, clip.SIZE)
    for at_s, image in clip.frames():
        if 3 <= at_s < 5:
            writer.write(image)
    writer.release()
    return path
