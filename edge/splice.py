"""Puts pictures into a pipe without copying them: it holds the very memory that they were made in. See vmsplice(2).

Copying into a pipe, and the pages that it takes for that, are 3 to 4 % of the processor time of an annotated copy.
"""

import contextlib
import ctypes
import errno
import fcntl
import itertools
import os

import numpy as np
import numpy.typing as npt

PIPE_BYTES = 2**20  # the most that Linux gives to anybody


class _Piece(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class PicturePipe:
    """Pictures of one shape, uint8, for a program that reads them from a pipe, whose file descriptor this is."""

    def __init__(self, pipe: int, shape: tuple[int, ...]) -> None:
        self._pipe = pipe
        with contextlib.suppress(OSError):  # there may be a smaller limit
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        # Memory is free again when the pipe's whole length has been written behind it.
        count = fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) // int(np.prod(shape)) + 2
        self._pictures = itertools.cycle([np.empty(shape, np.uint8) for _ in range(count)])
        self._vmsplice = getattr(ctypes.CDLL(None, use_errno=True), "vmsplice", None)

    def free(self) -> npt.NDArray[np.uint8]:
        """Where the next picture is to be made."""
        return next(self._pictures)

    def write(self, picture: npt.NDArray[np.uint8]) -> None:
        """Give it to the program, waiting for room. picture: what `free` gave last. Raises OSError."""
        left = picture.data.cast("B")
        while left:
            left = left[self._put(left) :]

    def _put(self, memory: memoryview) -> int:
        """How many of these bytes found room."""
        if self._vmsplice is None:
            return os.write(self._pipe, memory)
        piece = _Piece(ctypes.addressof(ctypes.c_char.from_buffer(memory)), len(memory))
        put: int = self._vmsplice(self._pipe, ctypes.byref(piece), 1, 0)
        if put >= 0:
            return put
        code = ctypes.get_errno()
        if code == errno.EPIPE:
            raise BrokenPipeError(code, os.strerror(code))
        if code != errno.EINTR:
            self._vmsplice = None  # refused, by a sandbox with whatever number
        return 0
