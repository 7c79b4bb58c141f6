"""Stages beside one another keep the order, wait for room, hand on what was raised, and end with whoever left."""

import threading
from collections.abc import Iterator

import pytest

from conftest import wait_for
from edge.beside import Behind, ahead

ROOM = 3


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_items_come_in_their_order_and_no_more_than_there_is_room_for() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    with ahead(items(), ROOM) as taken:
        assert next(taken) == 0
        wait_for(lambda: len(made) == ROOM + 2, "one taken, three that wait, one that has no room")
        assert list(taken) == list(range(1, 20))
        assert len(made) == 20


def test_what_making_them_raises_is_raised_behind_those_that_were_made() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("no more")

    with ahead(items(), ROOM) as taken:
        assert next(taken) == 1
        with pytest.raises(OSError, match="no more"):
            next(taken)


def test_leaving_ends_the_thread_however_much_there_is_still_to_come() -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 1

    with pytest.raises(KeyboardInterrupt), ahead(endless(), ROOM) as taken:
        assert next(taken) == 1
        raise KeyboardInterrupt
    assert "ahead" not in threads()


def test_work_is_done_in_order_and_finished_on_leaving() -> None:
    done: list[int] = []
    go = threading.Event()

    def work(number: int) -> None:
        go.wait()
        done.append(number)

    with Behind(work, ROOM) as behind:
        for number in range(ROOM):
            behind.put(number)
        assert done == []
        go.set()
        for number in range(ROOM, 10):
            behind.put(number)
    assert done == list(range(10))
    assert "behind" not in threads()


@pytest.mark.parametrize("items", [1, 50], ids=["on leaving", "while there is more"])
def test_work_that_fails_is_told_and_nothing_is_worked_on_after_it(items: int) -> None:
    seen: list[int] = []

    def work(number: int) -> None:
        seen.append(number)
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"), Behind(work, ROOM) as behind:
        for number in range(items):
            behind.put(number)
    assert seen == [0]
    assert "behind" not in threads()


def test_what_waits_is_dropped_when_the_one_in_front_failed() -> None:
    go = threading.Event()
    seen: list[int] = []

    def work(number: int) -> None:
        seen.append(number)
        go.wait()

    with pytest.raises(KeyboardInterrupt), Behind(work, ROOM) as behind:
        behind.put(0)
        wait_for(lambda: seen == [0], "the first is worked on")
        behind.put(1)
        threading.Timer(0.2, go.set).start()
        raise KeyboardInterrupt
    assert seen == [0]
