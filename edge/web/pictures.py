"""The live picture of a camera: asked for while a page shows it, and kept in memory until the next one comes."""

import threading
import time
from collections.abc import Callable
from urllib.parse import urlencode

from fastapi import FastAPI, Response

from edge.web.fleet import CameraView, Fleet

ASK_EVERY_S = 4.0  # a device answers each question for 10 s
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Pictures:
    """Asks for them, however many pages look, and hands them out. `ask` takes `<device>/<camera>`."""

    def __init__(self, fleet: Fleet, ask: Callable[[str], None]) -> None:
        self._fleet, self._ask = fleet, ask
        self._lock = threading.Lock()
        self._asked_at: dict[str, float] = {}

    def look(self, view: CameraView) -> str:
        """Somebody looks: ask if it is time to. The address of the newest picture, or '' while there is none."""
        where, now = f"{view.device}/{view.name}", time.monotonic()
        with self._lock:
            due = now - self._asked_at.get(where, -ASK_EVERY_S) >= ASK_EVERY_S
            if due:
                self._asked_at = {key: at for key, at in self._asked_at.items() if now - at < ASK_EVERY_S}
                self._asked_at[where] = now
        if due:
            self._ask(where)
        if not view.live_picture(time.time()):
            return ""
        # A new address for each picture, so that browsers load it.
        return "picture?" + urlencode({"device": view.device, "camera": view.name, "at": f"{view.picture_at:.3f}"})

    def add_to(self, api: FastAPI) -> None:
        """Serve `/picture`."""

        @api.get("/picture")
        def picture(device: str, camera: str) -> Response:
            view = self._fleet.camera(device, camera)
            content = view.live_picture(time.time()) if view is not None else b""
            if not content:
                return Response(status_code=404, headers=HEADERS)
            return Response(content, media_type="image/jpeg", headers=HEADERS)
