"""A USB webcam by its stable name, on the kernel's own driver: formats, exposure, unplugged and plugged in again.

Needs root, udev, and a kernel with uvcvideo and vhci_hcd (Debian's has both; a container's host seldom lets it).
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from usb_webcam import BY_HAND, FORMATS, SIZE, UsbWebcam, load_drivers

from conftest import PATIENCE_S, Broker, plain, wait_for

NAME = Path("/dev/v4l/by-id/usb-emotiond_Test_webcam_0001-video-index0")  # from what usb_webcam.py says of itself
CAMERA_STATUS = "emotiond/pi/camera/status"


def plug(webcam: UsbWebcam) -> str:
    """Its stable name."""

    def attached() -> bool:
        with contextlib.suppress(OSError):
            webcam.plug()
            return True
        return False

    # A virtual host that just lost a device now and then does not look at the next one.
    for _ in range(3):
        wait_for(attached, "the port is free")
        with contextlib.suppress(AssertionError):
            wait_for(NAME.exists, "", PATIENCE_S / 3)
            break
        webcam.unplug()
    assert NAME.exists()
    time.sleep(1)  # udev sets its rights after its name
    return str(NAME)


@pytest.fixture
def webcam(clip_frames) -> Iterator[UsbWebcam]:
    if os.geteuid() or not load_drivers():
        pytest.skip("no virtual USB host here: needs root and a kernel with vhci_hcd and uvcvideo")
    webcam = UsbWebcam(clip_frames[::3])
    yield webcam
    webcam.unplug()
    wait_for(lambda: not NAME.exists(), "it is gone")


def test_check_finds_it_by_its_stable_name(webcam: UsbWebcam, start: Callable) -> None:
    name = plug(webcam)
    code, out, err = start("check", "--source", name, "--set", "mqtt.broker=null").finish()
    assert code == 0, out + err
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert f"found: {name}" in rows["cameras"]
    assert f"{name}, {SIZE[0]}x{SIZE[1]} px" in rows["camera"]


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_it_is_read_in_the_format_and_with_the_exposure_asked_for(
    pixel_format: str, webcam: UsbWebcam, start: Callable, broker: Broker, subscribe: Callable
) -> None:
    name, seen = plug(webcam), subscribe(broker.port)
    options = {"camera.pixel_format": pixel_format, "camera.exposure_ms": 8, "camera.timeout_s": 10}
    daemon = start("run", "--source", name, *plain(broker.port, **options))
    wait_for(lambda: any(event["emotion"] == "happy" for event in seen.events()), "a face is read as happy")
    assert (webcam.format, webcam.auto_exposure, webcam.exposure) == (FORMATS[pixel_format], BY_HAND, 80)
    assert daemon.stop()[0] == 0


def test_a_format_that_it_has_not_is_told(webcam: UsbWebcam, start: Callable) -> None:
    options = ("--set", "mqtt.broker=null", "--set", "camera.pixel_format=H264")
    code, _, err = start("run", "--source", plug(webcam), *options).finish()
    assert (code, err.count("\n"), "not H264" in err, "camera.pixel_format" in err) == (69, 1, True, True), err


def test_an_exposure_out_of_its_range_is_told(webcam: UsbWebcam, start: Callable) -> None:
    options = ("--set", "mqtt.broker=null", "--set", "camera.exposure_ms=5000")  # it has a second at most
    code, _, err = start("run", "--source", plug(webcam), *options).finish()
    assert (code, err.count("\n"), "camera.exposure_ms" in err) == (69, 1, True), err


def test_it_is_taken_up_again_by_its_name(
    webcam: UsbWebcam, start: Callable, broker: Broker, subscribe: Callable
) -> None:
    name, seen = plug(webcam), subscribe(broker.port)
    daemon = start("run", "--source", name, *plain(broker.port, **{"camera.timeout_s": 10}))
    for _ in range(3):
        wait_for(lambda: seen.texts(CAMERA_STATUS)[-1:] == ["online"], "online")
        webcam.unplug()
        wait_for(lambda: seen.texts(CAMERA_STATUS)[-1:] == ["offline"], "offline")
        plug(webcam)
    wait_for(lambda: seen.texts(CAMERA_STATUS)[-1:] == ["online"], "online")
    assert daemon.stop()[0] == 0


def test_while_another_program_holds_it_it_is_offline_and_then_taken(
    webcam: UsbWebcam, start: Callable, broker: Broker, subscribe: Callable, tmp_path: Path
) -> None:
    name, seen = plug(webcam), subscribe(broker.port)
    holder = start("run", "--source", name, *plain(broker.port, **{"device": "holder", "camera.timeout_s": 10}))
    wait_for(lambda: seen.texts("emotiond/holder/camera/status")[-1:] == ["online"], "it is held")
    code, out, _ = start("check", "--source", name, "--set", "mqtt.broker=null").finish()
    assert (code, "camera     FAIL" in out) == (69, True), out
    settings = tmp_path / "config.yaml"
    cameras = [{"name": "webcam", "source": name, "timeout_s": 10}, {"name": "clip", "source": "builtin"}]
    settings.write_text(json.dumps({"cameras": cameras}))
    start("run", "--config", str(settings), *plain(broker.port))
    wait_for(lambda: seen.texts("emotiond/pi/clip/status")[-1:] == ["online"], "the other camera is online")
    assert seen.texts("emotiond/pi/webcam/status")[-1:] == ["offline"]
    assert holder.stop()[0] == 0
    wait_for(lambda: seen.texts("emotiond/pi/webcam/status")[-1:] == ["online"], "it is free, and taken")
