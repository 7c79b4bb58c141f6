"""The real daemon, `emotiond run` as a process, watched from outside: its messages, its processor time, its memory."""

import json
import queue
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.measure import ROOT, memory_mb, processor_s
from edge.config import MqttConfig
from edge.errors import ServiceUnavailableError

DEVICE = "bench"
PATIENCE_S = 60.0  # beyond what was asked for; the machine may be busy


class Daemon:
    """`emotiond run` on a source, publishing to a broker that runs already. A context manager.

    Messages are to be put in `inbox`, (monotonic seconds, topic, text), by whoever subscribes.
    """

    def __init__(self, source: str, broker: MqttConfig, inbox: "Inbox", overrides: Sequence[str] = ()) -> None:
        self._inbox = inbox
        inbox.clear()
        fixed = [f"device={DEVICE}", f"mqtt.broker={broker.broker}", f"mqtt.port={broker.port}", "mqtt.tls=false"]
        fixed += [f'mqtt.protocol="{broker.protocol}"', *overrides]
        settings = [part for override in fixed for part in ("--set", override)]
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - closed with this object
        self.started_at = time.monotonic()
        self._child = subprocess.Popen(
            [sys.executable, "-m", "edge", "run", "--config", ROOT / "config.yaml", "--source", source, *settings],
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            cwd=ROOT,
        )

    def __enter__(self) -> "Daemon":
        return self

    def __exit__(self, *exc: object) -> None:
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
            try:
                self._child.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        self._errors.close()

    def message(self, kind: str, within_s: float) -> tuple[float, dict[str, Any]] | None:
        """The next JSON message of a kind (`events`, `stats`) and when it came; None if the daemon ends before.

        Raises ServiceUnavailableError if the daemon fails, or says nothing `within_s` seconds.
        """
        patience_s = within_s + PATIENCE_S
        deadline = time.monotonic() + patience_s
        while True:
            ended = self._child.poll()
            try:
                at, topic, text = self._inbox.get(0.2 if ended is None else 0.5)
            except queue.Empty:
                if ended:
                    self._errors.seek(0)
                    said = self._errors.read().strip().splitlines()
                    raise ServiceUnavailableError(
                        f"the daemon ended with {ended}: {said[-1] if said else ''}"
                    ) from None
                if ended is not None:
                    return None
                if time.monotonic() > deadline:
                    raise ServiceUnavailableError(f"the daemon sent no {kind} within {patience_s:.0f} s") from None
                continue
            if topic.endswith(f"/{kind}"):
                return at, json.loads(text)

    def cpu_s(self) -> float:
        """Processor time of all its threads until now, in seconds."""
        return processor_s(self._child.pid)

    def memory_mb(self) -> tuple[float, float]:
        """Resident memory now, and at most until now, in MB."""
        return memory_mb(self._child.pid)


class Inbox:
    """Lines of a raw subscriber (`edge.watch`) with the time at which they came."""

    def __init__(self) -> None:
        self._messages: queue.Queue[tuple[float, str, str]] = queue.Queue(100_000)

    def write(self, line: str) -> None:
        """Take `topic payload`."""
        topic, _, text = line.partition(" ")
        self._messages.put_nowait((time.monotonic(), topic, text))

    def get(self, timeout_s: float) -> tuple[float, str, str]:
        """The oldest; raises queue.Empty."""
        return self._messages.get(timeout=timeout_s)

    def clear(self) -> None:
        """Forget what came until now."""
        while not self._messages.empty():
            self._messages.get_nowait()
