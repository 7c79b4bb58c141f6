"""Pictures through a pipe, without a copy of them."""

import ctypes
import errno
import itertools
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from edge import splice
from edge.splice import PicturePipe

SHAPES = [(3, 5), (72, 64), (720, 640), (1620, 1920)]  # much smaller than a page, and larger than the pipe


def pictures(shape: tuple[int, ...], count: int) -> list[np.ndarray]:
    return [np.random.default_rng(number).integers(0, 256, shape, np.uint8) for number in range(count)]


def sent(shape: tuple[int, ...], count: int, slowly: bool = False) -> bytes:
    """What a reader of a pipe gets, into which the pictures were put, one after another, in memory used again."""
    reading, writing = os.pipe()
    got = bytearray()

    def read() -> None:
        for turn in itertools.count():
            if slowly and turn < 40:
                time.sleep(0.005)
            if not (piece := os.read(reading, 30_011 if slowly else 2**20)):
                return
            got.extend(piece)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    pipe = PicturePipe(writing, shape)
    for picture in pictures(shape, count):
        memory = pipe.free()
        memory[:] = picture
        pipe.write(memory)
    os.close(writing)
    reader.join()
    os.close(reading)
    return bytes(got)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("slowly", [False, True])
def test_a_reader_gets_every_picture_as_it_was_when_it_was_written(shape: tuple[int, int], slowly: bool) -> None:
    count = 2000 if shape[0] < 100 else 12
    assert sent(shape, count, slowly) == b"".join(picture.tobytes() for picture in pictures(shape, count))


@pytest.mark.parametrize("refusal", [errno.ENOSYS, errno.EPERM, errno.EACCES])
def test_where_a_sandbox_refuses_it_pictures_are_copied(monkeypatch: pytest.MonkeyPatch, refusal: int) -> None:
    class Refusing:
        def __init__(self, *_: object, **__: object) -> None: ...

        def vmsplice(self, *_: object) -> int:
            ctypes.set_errno(refusal)
            return -1

    monkeypatch.setattr(splice.ctypes, "CDLL", Refusing)
    assert sent((720, 640), 12) == b"".join(picture.tobytes() for picture in pictures((720, 640), 12))


def test_a_program_that_has_gone_breaks_the_pipe() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"], stdin=subprocess.PIPE)
    assert child.stdin is not None
    pipe = PicturePipe(child.stdin.fileno(), (720, 640))
    child.wait()
    with pytest.raises(BrokenPipeError):
        pipe.write(pipe.free())
    child.stdin.close()
