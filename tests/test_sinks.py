"""Lines never block the loop, whatever the reader does."""

import json
import os
import threading
import time

import pytest

from conftest import wait_for
from edge import sinks
from edge.records import Event, Reading
from edge.sinks import JsonLines, LineWriter
from fakes import EPOCH, ORIGIN, scores, track


def event(number: int) -> Event:
    reading = Reading(track(number), scores(happy=0.9), "happy")
    return Event(str(number), "new", reading, None, (640, 480), EPOCH, EPOCH, 1.0)


def test_events_are_written_in_order_one_a_line() -> None:
    reading_end, writing_end = os.pipe()
    with LineWriter(writing_end) as writer:
        for number in range(50):
            JsonLines(writer).publish(event(number), ORIGIN)
    os.close(writing_end)
    with os.fdopen(reading_end) as lines:
        assert [json.loads(line)["id"] for line in lines] == [str(n) for n in range(50)]


def test_a_reader_that_does_not_read_costs_lines_and_not_time(monkeypatch) -> None:
    monkeypatch.setattr(sinks, "QUEUE_SIZE", 10)
    reading_end, writing_end = os.pipe()
    with LineWriter(writing_end, hurries=lambda: True) as writer:
        for _ in range(1000):  # far more than a pipe and the queue hold
            writer.write("x" * 1000)
        assert writer.dropped > 500
        # Read the pipe empty, so that the writing thread ends with this test.
        threading.Thread(target=lambda: [os.read(reading_end, 1 << 20) for _ in range(3)], daemon=True).start()
    os.close(writing_end)


def test_a_reader_that_takes_its_time_gets_every_line() -> None:
    reading_end, writing_end = os.pipe()
    lines: list[str] = []

    def read_late() -> None:
        time.sleep(1.5)  # longer than somebody in a hurry waits
        with os.fdopen(reading_end) as file:
            lines.extend(file)

    reader = threading.Thread(target=read_late)
    reader.start()
    with LineWriter(writing_end) as writer:
        for number in range(2000):  # more than a pipe holds
            writer.write(f"{number:100}")
    os.close(writing_end)
    reader.join()
    assert [int(line) for line in lines] == list(range(2000))


def test_what_somebody_in_a_hurry_does_not_wait_for_is_told(caplog: pytest.LogCaptureFixture) -> None:
    reading_end, writing_end = os.pipe()
    with LineWriter(writing_end, hurries=lambda: True) as writer:
        for _ in range(2000):
            writer.write("x" * 100)
    (told,) = caplog.messages
    assert 0 < int(told.split()[0]) <= 2000
    assert told.endswith("lines were not printed: the reader was too slow")
    os.close(reading_end)
    os.close(writing_end)


def test_what_cannot_be_written_is_an_error_at_the_end() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError, match="No space left on device: 'standard output'"), LineWriter(full) as writer:
        writer.write("no room for this")
        wait_for(writer.closed.is_set, "the writer notices")
    os.close(full)


def test_a_reader_that_goes_away_is_noticed_and_no_error() -> None:
    reading_end, writing_end = os.pipe()
    os.close(reading_end)
    with LineWriter(writing_end) as writer:
        writer.write("nobody reads this")
        wait_for(writer.closed.is_set, "the writer notices")
        writer.write("nor this")
    os.close(writing_end)
