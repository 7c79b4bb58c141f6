"""A camera that speaks MJPEG over HTTP on loopback, as a process of its own: its work is not the daemon's.

    python -m benchmarks.stream CLIP FPS PORT

prints its URL. The clip is played to and fro, so that no face jumps where it begins again.
"""

import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2

from benchmarks.clips import pictures
from benchmarks.measure import ROOT

JPEG_QUALITY = 85


class Stream:
    """The process, while it is entered; `url` is where it plays."""

    def __init__(self, clip: Path, fps: float, port: int = 0) -> None:
        self._command = [sys.executable, "-m", "benchmarks.stream", str(clip), str(fps), str(port)]
        self.url = ""

    def __enter__(self) -> "Stream":
        self._child = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert self._child.stdout is not None
        self.url = self._child.stdout.readline().strip()
        return self

    def __exit__(self, *exc: object) -> None:
        self._child.kill()
        self._child.communicate()


def serve(clip: Path, fps: float, port: int) -> None:
    """Play until killed. port: 0 for any."""
    there = [cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1] for image in pictures(clip)]
    jpegs = [jpeg.tobytes() for jpeg in (*there, *there[-2:0:-1])]

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            began_at, index = time.monotonic(), 0
            while True:
                jpeg = jpegs[index % len(jpegs)]
                index += 1
                time.sleep(max(0.0, began_at + index / fps - time.monotonic()))
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                try:
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
                except OSError:  # who looked has gone
                    return

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        server.daemon_threads = True
        sys.stdout.write(f"http://127.0.0.1:{server.server_address[1]}/cam.mjpg\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
