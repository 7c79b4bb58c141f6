"""A process with the daemon's own spool and link, which makes numbered events until it is told or killed.

    python tests/publisher.py PORT FOLDER FIRST LAST EVENTS_A_SECOND

Says `made N` before event N is published and `kept N` when all up to N are in the spool's file, `sent` when the broker
has acknowledged all. Event N is of face N % 5; its number stands in the event's frame size.
"""

import sys
import time
from pathlib import Path

from edge.config import MqttConfig, SpoolConfig
from edge.connection import Dialer
from edge.messages import Origin, Topics
from edge.mqtt import MqttLink
from edge.policy import uuid7
from edge.records import Event, Reading
from edge.spool import Spool
from fakes import EPOCH, scores, track

FACES = 5
AT_ONCE = 10  # events between two looks at the file


def event(number: int) -> Event:
    return Event(
        uuid7(),
        "update",
        Reading(track(number % FACES), scores(happy=0.9), "happy"),
        None,
        (number, 0),
        EPOCH,
        EPOCH,
        1.0,
    )


def main(port: int, folder: Path, first: int, last: int, rate: float) -> None:
    config = MqttConfig(broker="127.0.0.1", port=port, retry_min_s=0.1, retry_max_s=0.5, keepalive_s=5)
    origin, topics = Origin("pi", "camera", "0" * 12), Topics("emotiond", "pi")
    with Spool(SpoolConfig(folder=folder, max_events=1_000_000, max_mb=1000)) as spool:
        with MqttLink(config, Dialer(config, "emotiond-pi"), topics, ["camera"], spool, lambda *_: None) as link:
            for number in range(first, last + 1):
                print("made", number, flush=True)
                link.publish(event(number), origin)
                if number % AT_ONCE == 0 or number == last:
                    spool.flush(60)
                    link.raise_failure()
                    print("kept", number, flush=True)
                if rate:
                    time.sleep(1 / rate)
            while len(spool):
                link.raise_failure()
                time.sleep(0.02)
            print("sent", flush=True)
            sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
