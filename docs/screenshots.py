"""Makes docs/working.png: the built-in clip, read by the shipped network, as the daemon does it."""

from pathlib import Path

import cv2
import numpy as np

from edge.app import build_pipeline, build_search, build_source
from edge.classifier import TfliteClassifier
from edge.config import CameraConfig, Config
from edge.draw import draw

MOMENTS_S = (1.6, 4.2, 8.0)


def main() -> None:
    """Play the clip as fast as it can be read, and keep the pictures of three moments."""
    config = Config(device="demo", camera=CameraConfig(realtime=False, loop=False))
    pictures: list[np.ndarray] = []
    with build_search(config) as search, build_source(config.camera) as source:
        pipeline = build_pipeline(config, search, TfliteClassifier.from_config(config.model))
        while len(pictures) < len(MOMENTS_S):
            frame = source.take(1.0)
            sight = pipeline.step(frame)
            if frame.media_time >= MOMENTS_S[len(pictures)]:
                pictures.append(draw(frame.image, sight.readings))
    strip = cv2.resize(np.hstack(pictures), None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(Path(__file__).with_name("working.png")), strip, [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    main()
