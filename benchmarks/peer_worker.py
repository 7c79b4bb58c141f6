"""A peer in its own interpreter, which knows nothing of emotiond: `benchmarks.worker`'s lines of JSON, nothing else.

    PYTHON peer_worker.py NAME '{}'

A peer whose weights do not come with its package is not here: it would be fetched while it is measured.
"""

import importlib.metadata
import json
import os
import sys
import time
import warnings


class Fer:
    """https://pypi.org/project/fer: Haar at 1.1/5 and a mini-Xception of 64x64 pixels, in TFLite or Keras."""

    package = "fer"

    def __init__(self, use_tflite):
        try:
            from fer.fer import FER
        except ImportError:
            from fer import FER
        self._detector = FER(use_tflite=use_tflite)
        self._reader = FER(use_tflite=use_tflite, offsets=(0, 0))  # for pictures that are cut already

    def look(self, image):
        """(height, width, 3) BGR: the top emotion of every face."""
        return [_top(face["emotions"]) for face in self._detector.detect_emotions(image)]

    def read(self, face):
        """(height, width, 3) BGR of a face alone: its top emotion."""
        height, width = face.shape[:2]
        faces = self._reader.detect_emotions(face, face_rectangles=[(0, 0, width, height)])
        return _top(faces[0]["emotions"]) if faces else ""


def _top(scores):
    return max(scores, key=scores.get)


PEERS = {"fer": lambda: Fer(use_tflite=True), "fer-keras": lambda: Fer(use_tflite=False)}


def take_turn(peer, wishes):
    import cv2
    import numpy as np

    if "pictures" in wishes:
        pictures = [np.repeat(grey[..., None], 3, axis=2) for grey in np.load(wishes["pictures"])]
        peer.read(pictures[0])
        began_at = time.perf_counter()
        told = [peer.read(picture) for picture in pictures]
        return {"told": told, "ms": (time.perf_counter() - began_at) * 1000 / len(pictures)}
    capture = cv2.VideoCapture(wishes["clip"], cv2.CAP_FFMPEG)
    stride = max(1, round(capture.get(cv2.CAP_PROP_FRAME_COUNT) / wishes["frames_max"]))
    frames, index, took, faces = 0, 0, 0.0, 0
    while True:
        began_at = time.perf_counter()
        found, image = capture.read()
        if not found:
            break
        if index % stride == wishes["offset"] % stride:
            faces += len(peer.look(image))
            took += time.perf_counter() - began_at
            frames += 1
        index += 1
    capture.release()
    return {"frames": frames, "seconds": took, "faces": faces / max(1, frames)}


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    try:
        peer = PEERS[sys.argv[1]]()
        about = {"version": importlib.metadata.version(peer.package)}
    except ImportError as error:
        about = {"missing": str(error)}
    answers.write(json.dumps(about) + "\n")
    answers.flush()
    for line in sys.stdin:
        answers.write(json.dumps(take_turn(peer, json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
