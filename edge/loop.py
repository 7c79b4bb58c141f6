"""The loop: cameras take turns, a frame each; events and what is said of the cameras go to sinks and monitors.

One thread reads all of them, so that nothing of theirs needs a lock and no camera is served twice before another with a
frame is served once; what a frame costs most, searching it whole, is done beside the loop.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from edge.channel import Channel
from edge.errors import EmotiondError, EndOfStream
from edge.health import Notifier
from edge.messages import Origin
from edge.pipeline import Sight
from edge.records import Event

log = logging.getLogger(__name__)

IDLE_S = 0.2  # how soon the loop sees a signal or a command while no frames come
ORDERS_MAX = 100  # that wait for the loop; of more the oldest are forgotten


@dataclass(slots=True)
class Wishes:
    """What signals and commands ask of the loop. Nothing here takes a lock, so a handler may set it."""

    stop: bool = False
    reload: bool = False
    pauses: deque[tuple[bool, str | None]] = field(default_factory=lambda: deque(maxlen=ORDERS_MAX))
    """Whether to pause or to resume, and which camera; None is all of them, also those to come."""


class Sink(Protocol):
    """Where events go."""

    def publish(self, event: Event, origin: Origin) -> None:
        """Take an event of the camera that `origin` names; never blocks."""


class Monitor(Sink, Protocol):
    """A reader of states and figures, besides the events."""

    @property
    def drops(self) -> dict[str, int]:
        """Messages that were not sent, by cause."""

    @property
    def queued(self) -> int:
        """Events that wait."""

    def raise_failure(self) -> None:
        """Raise what keeps it from working at all."""

    def show(self, sight: Sight, origin: Origin) -> None:
        """Take what a frame showed."""

    def camera_status(self, camera: str, status: str) -> None:
        """Take `online`, `offline` or `paused`."""

    def stats(self, messages: Sequence[dict[str, Any]]) -> None:
        """Take the daemon's figures, one message for each camera."""


class Loop:
    """Takes frames from the cameras and gives events to the sinks; says how it goes.

    arrived: set when a camera may have a frame to take.
    """

    def __init__(self, wishes: Wishes, arrived: threading.Event) -> None:
        self._wishes, self._arrived = wishes, arrived
        self._channels: list[Channel] = []
        self._sinks: Sequence[Sink] = ()
        self._monitors: Sequence[Monitor] = ()
        self._runtime = ""
        self._notifier = Notifier()
        self._ready = self._paused = False
        self._stats_interval_s = self._stats_due_at = 0.0

    def use(
        self,
        channels: Sequence[Channel],
        printers: Sequence[Sink],
        monitors: Sequence[Monitor],
        runtime: str,
        stats_interval_s: float,
    ) -> None:
        """Go on with these; all of them take events. A new camera is paused if all were told to be."""
        for channel in channels:
            if channel not in self._channels:
                channel.paused = self._paused
            elif channel.status is not None:
                for monitor in monitors:
                    monitor.camera_status(channel.name, channel.status)
        self._channels, self._sinks, self._monitors = list(channels), [*printers, *monitors], monitors
        self._runtime = runtime
        self._stats_interval_s = stats_interval_s
        self._stats_due_at = time.monotonic() + stats_interval_s

    def run(self, max_frames: int | None, renew: Callable[[], None] | None = None) -> None:
        """Until all sources have ended, `max_frames` are done or someone wishes to stop.

        renew: called when someone wishes so, to read the settings and `use` what they ask for; raises EmotiondError
        and changes nothing if they cannot be used.
        """
        left = float("inf") if max_frames is None else max_frames
        while not self._wishes.stop and left > 0:
            self._notifier.alive()
            if self._wishes.reload and self._ready:
                self._renew(renew)
            self._obey()
            self._arrived.clear()  # before looking: what comes meanwhile is seen in the next round
            done = 0
            for channel in self._channels:
                if done < left:
                    done += self._turn(channel)
            left -= done
            if all(channel.ended for channel in self._channels):
                break
            if self._ready:
                self._report()
            # Whatever came after it was cleared has set it.
            self._arrived.wait(min(IDLE_S, *(channel.due_in() for channel in self._channels)))
        self._notifier.say("STOPPING=1")
        for channel in self._channels:
            self.end_faces(channel)

    def end_faces(self, channel: Channel) -> None:
        """Say of all faces of a camera that they are gone."""
        self._hand_on(channel, channel.finish())

    def _turn(self, channel: Channel) -> bool:
        """One frame of a camera, if one is there; true if one was."""
        frame = None
        try:
            frame = channel.take()
        except EndOfStream:
            channel.ended = True
        except EmotiondError as error:
            channel.ended = True
            if all(other.ended for other in self._channels):
                raise
            log.error("%s; the other cameras go on", error)
        if (status := channel.changed_status(frame is not None)) is not None:
            self._tell(channel, status)
        channel.mind_pace()
        if frame is None:
            return False
        self._hand_on(channel, channel.step(frame))
        channel.frame_done(frame)
        return True

    def _tell(self, channel: Channel, status: str) -> None:
        if status != "online":
            self.end_faces(channel)
        for monitor in self._monitors:
            monitor.camera_status(channel.name, status)
        # One that gives frames is enough: others may be away for days. So is knowing that none does.
        known = [other.status for other in self._channels]
        if not self._ready and ("online" in known or None not in known):
            self._ready = True
            self._notifier.say("READY=1")
        self._say_status()

    def _say_status(self) -> None:
        said = ", ".join(f"{channel.name} {channel.status or 'starting'}" for channel in self._channels)
        self._notifier.say(f"STATUS=camera{'s' * (len(self._channels) > 1)} {said}")

    def _renew(self, renew: Callable[[], None] | None) -> None:
        self._wishes.reload = False  # before the settings are read: what is wished for meanwhile is done again
        self._notifier.reloading()
        try:
            if renew is not None:
                renew()
                log.info("the settings were read again and are in force")
        except EmotiondError as error:
            log.error("reload refused, the old settings stay: %s", error)
        self._notifier.say("READY=1")
        self._say_status()

    def _obey(self) -> None:
        while self._wishes.pauses:
            paused, camera = self._wishes.pauses.popleft()
            if camera is None:
                self._paused = paused
            for channel in self._channels:
                if camera in (None, channel.name):
                    channel.paused = paused

    def _hand_on(self, channel: Channel, sight: Sight | None) -> None:
        if sight is None:
            return
        for event in sight.events:
            for sink in self._sinks:
                sink.publish(event, channel.origin)
        for monitor in self._monitors:
            monitor.show(sight, channel.origin)

    def _report(self) -> None:
        for monitor in self._monitors:
            monitor.raise_failure()
        now = time.monotonic()
        if now < self._stats_due_at:
            return
        self._stats_due_at += self._stats_interval_s
        if self._stats_due_at <= now:  # the process was stopped, or its machine: nothing is owed for that time
            self._stats_due_at = now + self._stats_interval_s
        drops: dict[str, int] = {}
        for monitor in self._monitors:
            drops |= monitor.drops
        queued = sum(monitor.queued for monitor in self._monitors)
        messages = [channel.stats_message(self._runtime, drops, queued) for channel in self._channels]
        for monitor in self._monitors:
            monitor.stats(messages)
