"""Keeps freed memory for what comes next: without it, each frame's is given back, and taken and cleared anew.

Of glibc's malloc; where there is another, nothing is asked of it. See mallopt(3).
"""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
KEPT = 2**28  # bytes
LARGEST = 2**25  # bytes in a piece; glibc takes no more
FOR_A_CHILD = {"MALLOC_TRIM_THRESHOLD_": str(KEPT), "MALLOC_MMAP_THRESHOLD_": str(LARGEST)}
"""The same for a program that is started, as variables of its environment."""


def keep_freed() -> None:
    """From now on, in this process."""
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT)
        mallopt(M_MMAP_THRESHOLD, LARGEST)
