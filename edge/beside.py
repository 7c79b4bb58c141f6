"""Stages beside one another: OpenCV leaves Python's lock while it works, so that threads use several cores."""

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def long_turns() -> None:
    """Ask for longer turns on the cores, for this thread and those that it starts: sched(7), SCHED_BATCH.

    Stages that wake one another would interrupt one another each time. Who works at this machine goes first.
    """
    with contextlib.suppress(OSError):  # a sandbox may forbid it
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


@contextmanager
def ahead(items: Iterator[T], room: int) -> Iterator[Iterator[T]]:
    """The items, made on a thread of their own, at most `room` of them before they are taken; then it waits.

    What making them raises is raised where they are taken. Leaving ends the thread, after the item that it makes.
    """
    made: queue.Queue[tuple[T] | BaseException] = queue.Queue(room)
    left = threading.Event()

    def make() -> None:
        end: BaseException = StopIteration()
        try:
            for item in items:
                made.put((item,))
                if left.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - not lost with this thread: raised where the items are taken
            end = error
        made.put(end)

    def taken() -> Iterator[T]:
        while isinstance(item := made.get(), tuple):
            yield item[0]
        if not isinstance(item, StopIteration):
            raise item

    thread = threading.Thread(target=make, name="ahead", daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        left.set()
        _empty(made)  # it may wait for room
        thread.join()


class Behind(Generic[T]):
    """Does `work` with each item, in their order, on a thread of its own while it is entered.

    `put` waits while `room` items wait. What the work raises is raised by the next `put`, or on leaving; after it no
    item is worked on. Leaving waits for the last item; with an exception, what still waits is dropped.
    """

    def __init__(self, work: Callable[[T], None], room: int) -> None:
        self._work = work
        self._waiting: queue.Queue[tuple[T] | None] = queue.Queue(room)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="behind", daemon=True)

    def __enter__(self) -> "Behind[T]":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if exc[0] is not None:
            _empty(self._waiting)
        self._waiting.put(None)
        self._thread.join()
        if exc[0] is None and self._failure is not None:
            raise self._failure

    def put(self, item: T) -> None:
        """Leave an item to be worked on."""
        if self._failure is not None:
            raise self._failure
        self._waiting.put((item,))

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            if self._failure is None:
                try:
                    self._work(item[0])
                except BaseException as error:  # noqa: BLE001 - not lost with this thread: `put` raises it
                    self._failure = error


def _empty(items: "queue.Queue[Any]") -> None:
    with contextlib.suppress(queue.Empty):
        while True:
            items.get_nowait()
