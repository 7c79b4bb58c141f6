"""JSON lines never block the loop, whatever the reader does."""

import io
import json
import os
import threading

from edge import sinks
from edge.messages import Origin
from edge.records import Event, Reading
from edge.sinks import JsonLines
from fakes import EPOCH, scores, track

ORIGIN = Origin("pi", "camera", "0" * 12)


def event(number: int) -> Event:
    reading = Reading(track(number), scores(happy=0.9), "happy")
    return Event(str(number), "new", reading, None, (640, 480), EPOCH, EPOCH, 1.0)


def test_events_are_written_in_order_one_a_line() -> None:
    out = io.StringIO()
    with JsonLines(out, ORIGIN) as sink:
        for number in range(50):
            sink.publish(event(number))
    assert [json.loads(line)["id"] for line in out.getvalue().splitlines()] == [str(n) for n in range(50)]


def test_a_reader_that_does_not_read_costs_events_and_not_time(monkeypatch) -> None:
    monkeypatch.setattr(sinks, "QUEUE_SIZE", 10)
    reading_end, writing_end = os.pipe()
    with os.fdopen(reading_end), os.fdopen(writing_end, "w") as stream:
        sink = JsonLines(stream, ORIGIN)
        sink.__enter__()
        for number in range(2000):  # far more than a pipe and the queue hold
            sink.publish(event(number))
        assert sink.dropped > 1000
        # Read the pipe empty, so that the writing thread can end.
        threading.Thread(target=lambda: os.read(reading_end, 1 << 24) and os.read(reading_end, 1 << 24)).start()


def test_a_reader_that_goes_away_is_no_error() -> None:
    reading_end, writing_end = os.pipe()
    os.close(reading_end)
    stream = os.fdopen(writing_end, "w")
    with JsonLines(stream, ORIGIN) as sink:
        sink.publish(event(1))
    os.dup2(os.open(os.devnull, os.O_WRONLY), writing_end)
    stream.close()
