"""A camera that speaks MJPEG over HTTP on loopback, with faults on command."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np

FPS = 15
MODES = ("run", "stall", "corrupt", "black", "garbage", "gaps", "slow", "resize", "single")


class MjpegCamera:
    """Serves pictures in a circle at `url`; `mode` can be changed at any time.

    run; stall: nothing comes, the connection stays; drop: the connection ends; refuse: and none is accepted; corrupt:
    the first third of each picture; black: black pictures; garbage: bytes that are no picture; gaps: every
    third picture has no bytes; slow: a picture every two seconds; resize: pictures of 1.25 times the size;
    single: one picture a connection.
    """

    def __init__(self, pictures: list[np.ndarray], fps: float = FPS) -> None:
        larger = [cv2.resize(picture, None, fx=1.25, fy=1.25) for picture in pictures]
        whole, large, black = (
            [cv2.imencode(".jpg", picture)[1].tobytes() for picture in some]
            for some in (pictures, larger, [np.zeros_like(pictures[0])])
        )
        noise = [np.random.default_rng(1).bytes(len(whole[0]))]
        camera = self
        self.mode = "run"
        self.clients = self.served = 0
        """Connections that are served now, and all that were."""

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments: object) -> None:
                pass

            def do_GET(self) -> None:
                if camera.mode == "refuse":
                    self.send_error(503)
                    return
                camera.clients, camera.served = camera.clients + 1, camera.served + 1
                try:
                    self.serve()
                except OSError:
                    pass
                finally:
                    camera.clients -= 1

            def serve(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                index = 0
                while camera.mode in MODES:
                    time.sleep(2 if camera.mode == "slow" else 1 / fps)
                    if camera.mode == "stall":
                        continue
                    kind = {"black": black, "garbage": noise, "resize": large}.get(camera.mode, whole)
                    jpeg = kind[index % len(kind)]
                    index += 1
                    if camera.mode == "corrupt":
                        jpeg = jpeg[: len(jpeg) // 3]
                    if camera.mode == "gaps" and index % 3 == 0:
                        jpeg = b""
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
                    if camera.mode == "single":
                        return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/cam.mjpg"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.mode = "drop"
        self._server.shutdown()
        self._server.server_close()
