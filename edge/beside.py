"""Work beside work: OpenCV leaves Python's lock while it works, so that threads use several cores; and programs."""

import contextlib
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")

NOT_THERE = 127  # as shells say it of a program


def long_turns() -> None:
    """Ask for longer turns on the cores, for this thread and those that it starts: sched(7), SCHED_BATCH.

    Stages that wake one another would interrupt one another each time. Who works at this machine goes first.
    """
    with contextlib.suppress(OSError):  # a sandbox may forbid it
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


class _Bounded(Generic[T]):
    """A queue of at most so many items, of which `put` waits for room and `get` for an item.

    In place of queue.Queue, whose steps are Python's: with them an annotated copy takes a hundredth longer.
    """

    def __init__(self, room: int) -> None:
        self._items: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._room: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(room):
            self._room.put(None)

    def put(self, item: T) -> None:
        self._room.get()
        self._items.put(item)

    def put_last(self, item: T) -> None:
        """Append it, whether there is room or not: an interrupted `put` may have taken the room with it."""
        self._items.put(item)

    def get(self) -> T:
        item = self._items.get()
        self._room.put(None)
        return item

    def empty(self) -> None:
        """Take out what waits."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._items.get_nowait()
                self._room.put(None)


class Asked:
    """A program that is asked for what it writes to standard output, from `start` on, while other work goes on.

    It is started on a thread of its own, where no signal raises anything between its start and what may `end` it.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._child: subprocess.Popen[str] | None = None
        self._answer = (NOT_THERE, "")
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="asked", daemon=True)

    def start(self) -> None:
        """Ask."""
        self._thread.start()

    def answer(self) -> tuple[int, str]:
        """Its exit code, `NOT_THERE` where it could not be started, and what it wrote, once it has ended."""
        self._thread.join()
        return self._answer

    def end(self) -> None:
        """Wait for it no longer; an `answer` that is waited for on another thread comes at once."""
        self._ended = True
        if (child := self._child) is not None and child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)

    def _run(self) -> None:
        try:
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                errors="replace",
                start_new_session=True,  # it may be a script, and what that starts ends with it
            )
        except OSError:
            return
        if self._ended:
            self.end()
        written, _ = self._child.communicate()
        self._answer = self._child.returncode, written


@contextmanager
def ahead(items: Iterator[T], room: int) -> Iterator[Iterator[T]]:
    """The items, made on a thread of their own, at most `room` of them before they are taken; then it waits.

    What making them raises is raised where they are taken. Leaving ends the thread, after the item that it makes.
    """
    made: _Bounded[tuple[T] | BaseException] = _Bounded(room)
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
        made.empty()  # it may wait for room
        thread.join()


class Behind(Generic[T]):
    """Does `work` with each item, in their order, on a thread of its own while it is entered.

    `put` waits while `room` items wait. What the work raises is raised by the next `put`, or on leaving; after it no
    item is worked on. Leaving waits for the last item; with an exception, what still waits is dropped.
    """

    def __init__(self, work: Callable[[T], None], room: int) -> None:
        self._work = work
        self._waiting: _Bounded[tuple[T] | None] = _Bounded(room)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="behind", daemon=True)

    def __enter__(self) -> "Behind[T]":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if exc[0] is not None:
            self._waiting.empty()
        self._waiting.put_last(None)
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
