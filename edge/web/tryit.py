"""The visitor's own camera: JPEG pictures come over a web socket, faces go back. No picture is kept."""

import asyncio
import itertools
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any

import numpy as np
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from edge.app import build_detector, build_pipeline, build_search
from edge.classifier import TfliteClassifier
from edge.config import CameraConfig, Config
from edge.errors import BadDataError, ConfigError
from edge.picturefile import decode
from edge.pipeline import Pipeline
from edge.records import Frame

log = logging.getLogger(__name__)

SESSIONS_MAX = 4  # each has a pipeline of its own
IDLE_S = 10.0  # without a picture; then the place is another's. Pages in the background send none
SIDE_MAX = 1280  # px; what the page sends is smaller
BUSY, BAD_DATA = 1013, 1003  # RFC 6455 and IANA's list: try again later, unsupported data
CANNOT_READ = 4500  # of our own, known to try.js: 1011 may also be a connection that was slow, which is worth a retry
IDLE = 4408  # likewise: the page goes on when it is looked at again
JPEG = b"\xff\xd8"  # what the page sends; of other kinds, a few bytes may claim much memory


def prove(config: Config) -> None:
    """Raises ConfigError if faces cannot be read with these settings."""
    TfliteClassifier.from_config(config.model)
    build_detector(config.detector)


def add_to(api: FastAPI, config: Config) -> None:
    """Serve `/try/frames`."""
    sessions = 0
    # Live, whatever camera the settings name: searches join when they are ready.
    live = config.model_copy(update={"camera": CameraConfig(source=0)})

    @api.websocket("/try/frames")
    async def frames(connection: WebSocket) -> None:
        nonlocal sessions
        await connection.accept()
        if sessions >= SESSIONS_MAX:
            await connection.close(BUSY, "others are trying it now")
            return
        sessions += 1
        try:
            await _serve(connection, live)
        except (WebSocketDisconnect, RuntimeError):  # gone; Starlette says so in two ways
            pass
        finally:
            sessions -= 1


async def _serve(connection: WebSocket, config: Config) -> None:
    try:
        await _answer(connection, config)
    except BadDataError:
        await connection.close(BAD_DATA, "not a picture")
    except asyncio.TimeoutError:
        await connection.close(IDLE, "no picture came")
    except ConfigError as error:  # the network's file was good at the start, and is no more
        log.warning("Try it: %s", error)
        await connection.close(CANNOT_READ, "the server cannot read faces")


async def _answer(connection: WebSocket, config: Config) -> None:
    """Read faces until the visitor leaves. Raises asyncio.TimeoutError, BadDataError for no picture, ConfigError."""
    loop = asyncio.get_running_loop()
    # One thread: the pictures of a visitor are looked at in their order, and nobody else waits for them.
    with ThreadPoolExecutor(1, thread_name_prefix="try") as thread, build_search(config) as search:
        classifier = await loop.run_in_executor(thread, TfliteClassifier.from_config, config.model)
        pipeline = build_pipeline(config, search, classifier)
        for seq in itertools.count():
            content = await _received(connection)
            await connection.send_json(await loop.run_in_executor(thread, _look, pipeline, content, seq))


async def _received(connection: WebSocket) -> bytes:
    """What came; empty for a text. Raises WebSocketDisconnect, asyncio.TimeoutError."""
    message = await asyncio.wait_for(connection.receive(), IDLE_S)
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    return message.get("bytes") or b""


def _look(pipeline: Pipeline, content: bytes, seq: int) -> dict[str, Any]:
    """The answer to a picture. Raises BadDataError for what is none that the page sends."""
    if not content.startswith(JPEG):
        raise BadDataError("not a JPEG")
    image = decode(np.frombuffer(content, np.uint8))
    if max(image.shape) > SIDE_MAX:
        raise BadDataError("too large")
    now = time.monotonic()
    sight = pipeline.step(Frame(image, seq, now, datetime.now(timezone.utc), media_time=now))
    faces = [
        {
            "face": reading.track.id,
            "emotion": reading.emotion,
            "confidence": round(reading.confidence, 3),
            "scores": [round(float(value), 3) for value in reading.scores.values],
            "box": reading.track.box.as_list(),
        }
        for reading in sight.readings
    ]
    return {"faces": faces, "ms": round((time.monotonic() - now) * 1000, 1)}
