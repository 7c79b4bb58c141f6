"""A small picture of what the camera sees, for who asks for it. Sent only if the settings allow it; never kept."""

import logging
import time
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edge.config import MqttConfig
from edge.connection import Connection
from edge.delivery import Delivery
from edge.messages import Topics
from edge.records import Frame

log = logging.getLogger(__name__)

ASKED_FOR_S = 10.0  # for which one question is answered: who still looks asks again, who has gone need not say so
QUALITY = 75  # of the JPEG; 480 px take 15 to 30 kB


class Snapshots:
    """Of one camera. The loop leaves a frame when one is due; the sending thread makes and sends the picture.

    The next is due only when the one before was written to the network: on a slow one pictures come more rarely, and
    events do not wait behind a heap of them.
    """

    def __init__(self, config: MqttConfig, topics: Topics, camera: str) -> None:
        self._config = config
        self._look, self._topic = topics.of_camera(camera, "look"), topics.of_camera(camera, "snapshot")
        self._asked_until = self._due_at = -float("inf")
        self._frame: Frame | None = None
        self._unwritten: int | None = None  # the message id of the picture that is on its way
        self._said = False

    def begin(self, connection: Connection) -> None:
        """On a new connection: hear who asks."""
        self._frame = self._unwritten = None
        if self._config.snapshots:
            connection.client.subscribe(self._look, qos=0)

    def hears(self, message: Any) -> bool:
        """Whether a message asks for pictures. One that was retained would ask for ever, and is passed over."""
        if message.topic != self._look:
            return False
        if self._config.snapshots and not message.retain:
            self._asked_until = time.monotonic() + ASKED_FOR_S
            if not self._said:
                self._said = True
                log.info("%s: somebody asks for pictures, and they are sent; this is said once", self._look)
        return True

    def offer(self, frame: Frame) -> bool:
        """Take the frame if somebody waits for a picture; says whether it was. Costs the loop nothing else."""
        now = time.monotonic()
        if now >= self._asked_until or now < self._due_at or self._frame is not None or self._unwritten is not None:
            return False
        self._due_at = now + 1 / self._config.snapshot_rate_hz
        self._frame = frame
        return True

    def send(self, delivery: Delivery) -> None:
        """Make a picture of the frame that was taken, if one was, and send it: not retained, and at most once."""
        frame, self._frame = self._frame, None
        if frame is not None:
            picture = as_jpeg(frame.image, self._config.snapshot_width)
            self._unwritten = delivery.pass_on(self._topic, picture)

    def written(self, message_id: int) -> None:
        """A message of this connection was handed to the network."""
        if message_id == self._unwritten:
            self._unwritten = None


def as_jpeg(image: npt.NDArray[np.uint8], width: int) -> bytes:
    """A (h, w, 3) BGR or (h, w) grey picture as JPEG, at most `width` px wide."""
    height_now, width_now = image.shape[:2]
    if width_now > width:
        size = (width, max(1, round(height_now * width / width_now)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes())
