"""A camera that speaks MJPEG over HTTP on loopback, with faults on command."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np

FPS = 15


class MjpegCamera:
    """Serves pictures in a circle at `url`; `mode` is run, stall, drop, corrupt or refuse, at any time."""

    def __init__(self, pictures: list[np.ndarray]) -> None:
        jpegs = [cv2.imencode(".jpg", picture)[1].tobytes() for picture in pictures]
        camera = self
        self.mode = "run"

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments: object) -> None:
                pass

            def do_GET(self) -> None:
                if camera.mode == "refuse":
                    self.send_error(503)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                index = 0
                while camera.mode in ("run", "stall", "corrupt"):
                    time.sleep(1 / FPS)
                    if camera.mode == "stall":
                        continue
                    jpeg = jpegs[index % len(jpegs)]
                    index += 1
                    if camera.mode == "corrupt":
                        jpeg = jpeg[: len(jpeg) // 3]
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    try:
                        self.wfile.write(head.encode() + jpeg + b"\r\n")
                    except OSError:
                        return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/cam.mjpg"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.mode = "drop"
        self._server.shutdown()
        self._server.server_close()
