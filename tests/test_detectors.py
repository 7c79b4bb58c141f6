"""What every detector promises, and where the one that brings TensorFlow may be."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from conftest import ROOT
from edge.app import build_detector
from edge.config import DETECTORS, HaarConfig, MtcnnConfig
from edge.errors import ConfigError
from edge.pipeline import FaceDetector
from edge.records import Box, Frame
from fakes import EPOCH

CONFIGS = [HaarConfig(search_width=960), MtcnnConfig(kind="mtcnn")]
PORTRAIT = ROOT / "edge/assets/portrait.jpg"
FACE = Box(177, 66, 95, 95)  # as people draw it


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda config: config.kind)
def detector(request: pytest.FixtureRequest) -> FaceDetector:
    if request.param.kind == "mtcnn":
        pytest.importorskip("mtcnn", reason="the extra `mtcnn` is not installed")
    return build_detector(request.param)


def frame(image: np.ndarray) -> Frame:
    return Frame(image, 0, 0.0, EPOCH, 0.0)


def test_every_detector_that_can_be_configured_is_tested() -> None:
    assert {config.kind for config in CONFIGS} == set(DETECTORS)


@pytest.mark.filterwarnings("ignore")  # TensorFlow's and the package's own
def test_a_detector_finds_the_face_in_colour_grey_and_larger(detector: FaceDetector) -> None:
    portrait = cv2.imread(str(PORTRAIT))
    double = cv2.resize(portrait, None, fx=2, fy=2)
    for image, scale in ((portrait, 1), (cv2.cvtColor(portrait, cv2.COLOR_BGR2GRAY), 1), (double, 2)):
        (face,) = detector.detect(frame(image))
        assert face.box.w == face.box.h
        assert face.box.overlap(Box(*(scale * side for side in (FACE.x, FACE.y, FACE.w, FACE.h)))) > 0.6
        assert face.confidence > 0


@pytest.mark.filterwarnings("ignore")
def test_a_detector_finds_the_largest_first_and_looks_only_where_it_should(detector: FaceDetector) -> None:
    portrait = cv2.imread(str(PORTRAIT))
    two = np.full((512, 1024, 3), 128, np.uint8)
    two[100:484, :384] = cv2.resize(portrait, (384, 384))
    two[:, 512:] = portrait
    boxes = [face.box for face in detector.detect(frame(two))]
    assert len(boxes) == 2
    assert boxes[0].w > boxes[1].w
    assert boxes[0].x > 512 > boxes[1].x
    (left,) = detector.detect(frame(two), Box(0, 0, 512, 512))
    assert left.box.overlap(boxes[1]) > 0.6


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shape", [(480, 640, 3), (480, 640), (1, 1, 3), (8, 2000, 3)])
def test_a_detector_finds_nothing_where_nobody_is(detector: FaceDetector, shape: tuple[int, ...]) -> None:
    assert detector.detect(frame(np.full(shape, 100, np.uint8))) == []


def test_tensorflow_is_loaded_only_when_its_detector_is_made() -> None:
    code = "import sys, edge.app, edge.mtcnn, edge.stills; print('tensorflow' in sys.modules, 'mtcnn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
    naming = [path.stem for path in (ROOT / "edge").glob("*.py") if '"mtcnn").MTCNN' in path.read_text()]
    assert naming == ["mtcnn"]


def test_the_daemon_and_check_refuse_it(tmp_path: Path) -> None:
    for command in (["run", "--max-frames", "1"], ["check"]):
        arguments = [*command, "--set", "detector.kind=mtcnn", "--set", "mqtt.broker=null"]
        # Where no config.yaml lies, whose settings are Haar's.
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "edge", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 78
        assert "mtcnn is for image, video and preview" in done.stdout + done.stderr


def test_where_it_is_not_installed_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mtcnn", None)  # what Python itself does with a package that is not there
    with pytest.raises(ConfigError, match=r"detector.kind: mtcnn: mtcnn is not installed: .* -m pip install"):
        build_detector(MtcnnConfig(kind="mtcnn"))
