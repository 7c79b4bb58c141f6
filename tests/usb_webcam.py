"""A USB webcam without the webcam: its part of the bus, spoken to the kernel's virtual USB host (vhci_hcd, as USB/IP).

The kernel's own driver for webcams (uvcvideo) then makes a real /dev/video* of it, and udev its name in /dev/v4l/by-id.
After the USB Video Class 1.0 (bulk transfers) and the kernel's Documentation/usb/usbip_protocol.rst.
"""

import contextlib
import itertools
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections import deque
from pathlib import Path

import cv2
import numpy as np

HOST = Path("/sys/devices/platform/vhci_hcd.0")
HIGH_SPEED, PORT, DEVICE = 3, 0, 1
SUBMIT, UNLINK, SUBMITTED, UNLINKED = 1, 2, 3, 4
STALL, UNLINKED_IN_TIME = -32, -104  # -EPIPE, -ECONNRESET

SIZE = (320, 240)
FPS = 10
PAYLOAD_MAX = 16384  # bytes; the driver asks for so much at once
FORMATS = {"MJPG": 1, "YUYV": 2}
MAKER, MODEL, SERIAL = "emotiond", "Test webcam", "0001"

SET_CUR, GET_CUR, GET_MIN, GET_MAX, GET_RES, GET_LEN, GET_INFO, GET_DEF = 0x01, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87
AUTO_EXPOSURE, EXPOSURE_TIME = 0x02, 0x04  # controls of the camera terminal
BY_HAND, BY_ITSELF = 1, 8  # of AUTO_EXPOSURE: manual, aperture priority
INTERVAL = 10_000_000 // FPS  # 100 ns


def _descriptor(kind: int, *fields: bytes | int) -> bytes:
    body = b"".join(bytes([field]) if isinstance(field, int) else field for field in fields)
    return bytes([len(body) + 2, kind]) + body


def _frame(kind: int) -> bytes:
    bits_per_s = SIZE[0] * SIZE[1] * 16 * FPS
    numbers = struct.pack("<HHIIII", *SIZE, bits_per_s, bits_per_s, SIZE[0] * SIZE[1] * 2, INTERVAL)
    return _descriptor(0x24, kind, 1, 0, numbers, 1, struct.pack("<I", INTERVAL))


def _configuration() -> bytes:
    """Interface 0 controls; interface 1 streams, at endpoint 1."""
    terminals = _descriptor(0x24, 2, 1, b"\x01\x02", 0, 0, bytes(6), 3, bytes([0x0A, 0, 0]))  # exposure: mode and time
    terminals += _descriptor(0x24, 3, 2, b"\x01\x01", 0, 1, 0)
    header = _descriptor(0x24, 1, struct.pack("<HHI", 0x0100, 13 + len(terminals), 48_000_000), 1, 1)
    formats = _descriptor(0x24, 6, FORMATS["MJPG"], 1, 1, 1, bytes(4)) + _frame(7)
    yuy2 = b"YUY2\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71"
    formats += _descriptor(0x24, 4, FORMATS["YUYV"], 1, yuy2, 16, 1, bytes(4)) + _frame(5)
    inputs = _descriptor(0x24, 1, 2, struct.pack("<H", 15 + len(formats)), 0x81, 0, 2, 0, 0, 0, 1, bytes(2))
    body = _descriptor(0x0B, 0, 2, 0x0E, 3, 0, 0)
    body += _descriptor(0x04, 0, 0, 0, 0x0E, 1, 0, 0) + header + terminals
    body += _descriptor(0x04, 1, 0, 1, 0x0E, 2, 0, 0) + inputs + formats
    body += _descriptor(0x05, 0x81, 2, struct.pack("<H", 512), 0)
    return _descriptor(0x02, struct.pack("<H", 9 + len(body)), 2, 1, 0, 0x80, 50) + body


DESCRIPTORS = {
    0x0100: _descriptor(0x01, b"\x00\x02", 0xEF, 2, 1, 64, struct.pack("<HHH", 0x1209, 1, 0x0100), 1, 2, 3, 1),
    0x0200: _configuration(),
    0x0300: _descriptor(0x03, b"\x09\x04"),
    **{0x0301 + n: _descriptor(0x03, text.encode("utf-16-le")) for n, text in enumerate((MAKER, MODEL, SERIAL))},
}


class RefusedError(Exception):
    """A request that this webcam does not know."""


class UsbWebcam:
    """A webcam with the pictures given, in a circle; `plug` it in, and `unplug` it."""

    def __init__(self, pictures: list[np.ndarray]) -> None:
        small = [cv2.resize(picture, SIZE, interpolation=cv2.INTER_AREA) for picture in pictures]
        self._frames = {
            FORMATS["MJPG"]: [cv2.imencode(".jpg", picture)[1].tobytes() for picture in small],
            FORMATS["YUYV"]: [cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_YUYV).tobytes() for picture in small],
        }
        self.format = FORMATS["MJPG"]
        """What it was last told to give."""
        self.auto_exposure, self.exposure = BY_ITSELF, 157
        """Likewise; 0.1 ms."""
        self._link: socket.socket | None = None
        self._asked: deque[tuple[int, int]] = deque()  # sequence numbers of the driver's open requests, and sizes
        self._changed = threading.Condition()
        self._sending = threading.Lock()

    def plug(self) -> None:
        """Its device is there a little later. Raises OSError if the port is taken, as it is shortly after `unplug`."""
        ours, kernels = socket.socketpair()
        with ours, kernels:
            (HOST / "attach").write_text(f"{PORT} {kernels.fileno()} {DEVICE} {HIGH_SPEED}")
            self._link = ours.dup()
        for work in (self._answer, self._stream):
            threading.Thread(target=work, args=(self._link,), daemon=True).start()

    def unplug(self) -> None:
        """Its device is gone a little later."""
        with self._changed:
            link, self._link = self._link, None
            self._asked.clear()
            self._changed.notify_all()
        if link is not None:
            with contextlib.suppress(OSError):
                (HOST / "detach").write_text(str(PORT))
            link.close()

    def _answer(self, link: socket.socket) -> None:
        """Requests of the driver, until it or we hang up."""
        while header := _read(link, 48):
            command, number, _, incoming, endpoint, _, size = struct.unpack(">IIIIIII", header[:28])
            if command == UNLINK:
                self._unlink(link, number, victim=struct.unpack(">I", header[20:24])[0])
            elif endpoint:
                with self._changed:
                    self._asked.append((number, size))
                    self._changed.notify()
            else:
                data = b"" if incoming else _read(link, size)
                try:
                    answer, status = self._control(header[40:48], data)[:size], 0
                except RefusedError:
                    answer, status = b"", STALL
                self._reply(link, number, status, answer if incoming else len(data))

    def _unlink(self, link: socket.socket, number: int, victim: int) -> None:
        with self._changed:
            open_ = [each for each in self._asked if each[0] == victim]
            for each in open_:
                self._asked.remove(each)
        status = UNLINKED_IN_TIME if open_ else 0
        self._send(link, struct.pack(">IIIIIi24x", UNLINKED, number, 0, 0, 0, status))

    def _control(self, setup: bytes, data: bytes) -> bytes:
        kind, request, value, index, _ = struct.unpack("<BBHHH", setup)
        if kind == 0x80 and request == 6:  # GET_DESCRIPTOR
            if value not in DESCRIPTORS:
                raise RefusedError
            return DESCRIPTORS[value]
        if not kind & 0x60:  # the other standard requests; the kernel asks few of them of the device
            return b"\x00\x00" if kind & 0x80 else b""
        if index == 1 and value >> 8 in (1, 2):  # the stream's PROBE and COMMIT
            return self._negotiate(request, data)
        if index == 0x0100:
            return self._expose(value >> 8, request, data)
        raise RefusedError

    def _negotiate(self, request: int, data: bytes) -> bytes:
        if request == SET_CUR:
            self.format = data[2]
            return b""
        if request == GET_LEN:
            return struct.pack("<H", 26)
        if request == GET_INFO:
            return b"\x03"
        size = SIZE[0] * SIZE[1] * 2
        return struct.pack("<HBBI10xII", 1, self.format, 1, INTERVAL, size, PAYLOAD_MAX)

    def _expose(self, control: int, request: int, data: bytes) -> bytes:
        mode, time_ = control == AUTO_EXPOSURE, control == EXPOSURE_TIME
        if not (mode or time_):
            raise RefusedError
        if request == SET_CUR:
            given = int.from_bytes(data, "little")
            if mode:
                self.auto_exposure = given
            elif self.auto_exposure == BY_HAND:
                self.exposure = given
            else:
                raise RefusedError  # as webcams do: it sets the time itself
            return b""
        if request == GET_INFO:
            return b"\x03"
        known = (
            {GET_CUR: self.auto_exposure, GET_RES: BY_HAND | BY_ITSELF, GET_DEF: BY_ITSELF, GET_LEN: 1}
            if mode
            else {GET_CUR: self.exposure, GET_MIN: 1, GET_MAX: 10_000, GET_RES: 1, GET_DEF: 157, GET_LEN: 4}
        )
        if request not in known:
            raise RefusedError
        return known[request].to_bytes(2 if request == GET_LEN else 1 if mode else 4, "little")

    def _stream(self, link: socket.socket) -> None:
        """Each picture in as many of the driver's requests as it takes, for as long as it asks."""
        for turn in itertools.count():
            time.sleep(1 / FPS)
            frames = self._frames[self.format]
            left = frames[turn % len(frames)]
            while left:
                with self._changed:
                    self._changed.wait_for(lambda: self._asked or self._link is not link)
                    if self._link is not link:
                        return
                    number, size = self._asked.popleft()
                part, left = left[: size - 2], left[size - 2 :]
                # The header's bits: it is one; this is the picture's last part; which of two pictures in turn it is.
                self._reply(link, number, 0, bytes([2, 0x80 | (not left) << 1 | turn % 2]) + part)

    def _reply(self, link: socket.socket, number: int, status: int, answer: bytes | int) -> None:
        """To a request; `answer` is what it asked for, or how much of what it sent was taken."""
        data, size = (b"", answer) if isinstance(answer, int) else (answer, len(answer))
        self._send(link, struct.pack(">IIIIIiiiii8x", SUBMITTED, number, 0, 0, 0, status, size, 0, 0, 0) + data)

    def _send(self, link: socket.socket, message: bytes) -> None:
        with self._sending, contextlib.suppress(OSError):  # unplugged meanwhile
            link.sendall(message)


def _read(link: socket.socket, size: int) -> bytes:
    """So many bytes, or none if there will not be as many."""
    data = b""
    while len(data) < size:
        try:
            part = link.recv(size - len(data))
        except OSError:
            return b""
        if not part:
            return b""
        data += part
    return data


def load_drivers() -> bool:
    """Whether this kernel has what it takes, and lets us."""
    if shutil.which("modprobe"):
        subprocess.run(["modprobe", "-a", "vhci_hcd", "uvcvideo"], capture_output=True, check=False)
    return (HOST / "attach").exists() and Path("/sys/module/uvcvideo").exists()
