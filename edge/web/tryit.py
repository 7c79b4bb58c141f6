"""The visitor's own camera: JPEG pictures come over a web socket, faces go back. No picture is kept."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any

import cv2
import numpy as np
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from edge.app import build_pipeline, build_search
from edge.classifier import TfliteClassifier
from edge.config import CameraConfig, Config
from edge.pipeline import Pipeline
from edge.preprocess import usable
from edge.records import Frame

SESSIONS_MAX = 4  # each has a pipeline of its own
SIDE_MAX = 1280  # px; what the page sends is smaller
BUSY, BAD_DATA = 1013, 1003  # RFC 6455 and IANA's list: try again later, unsupported data


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
    loop = asyncio.get_running_loop()
    # One thread: the pictures of a visitor are looked at in their order, and nobody else waits for them.
    with ThreadPoolExecutor(1, thread_name_prefix="try") as thread, build_search(config) as search:
        classifier = await loop.run_in_executor(thread, TfliteClassifier.from_config, config.model)
        pipeline = build_pipeline(config, search, classifier)
        seq = 0
        while True:
            content = await connection.receive_bytes()
            answer = await loop.run_in_executor(thread, _look, pipeline, content, seq)
            if answer is None:
                await connection.close(BAD_DATA, "not a picture")
                return
            await connection.send_json(answer)
            seq += 1


def _look(pipeline: Pipeline, content: bytes, seq: int) -> dict[str, Any] | None:
    try:
        image = usable(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)) if content else None
    except cv2.error:
        return None
    if image is None or max(image.shape) > SIDE_MAX:
        return None
    now = time.monotonic()
    sight = pipeline.step(Frame(image, seq, now, datetime.now(timezone.utc), media_time=now))
    faces = [
        {
            "face": reading.track.id,
            "emotion": reading.emotion,
            "confidence": round(reading.confidence, 3),
            "scores": [round(float(value), 3) for value in reading.scores.values],
            "box": [reading.track.box.x, reading.track.box.y, reading.track.box.w, reading.track.box.h],
        }
        for reading in sight.readings
    ]
    return {"faces": faces, "ms": round((time.monotonic() - now) * 1000, 1)}
