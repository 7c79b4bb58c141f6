"""Who counts what simulated devices send, in a session that outlives its connections."""

import contextlib
import itertools
import json
import random
import threading
import time
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.config import MqttConfig
from edge.connection import CONNACK_TIMEOUT_S, PROTOCOLS, broker_addresses
from edge.tls import tls_context

SESSION_S = 3600  # for which the broker keeps what a reader misses (MQTT 5)


class Reader:
    """Counts events by id, on a connection that it makes again, in a session that the broker keeps meanwhile."""

    def __init__(self, config: MqttConfig, filter_: str, name: str, protocol: str) -> None:
        self.arrived: dict[str, tuple[int, float]] = {}
        """Id to how often, and when first (monotonic seconds)."""
        self.bytes = 0
        self.subscribed = threading.Event()
        self._addresses = itertools.cycle(broker_addresses(config))
        self._config, self._filter, self._stop = config, filter_, threading.Event()
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2,
            name,
            clean_session=None if protocol == "5" else False,
            protocol=PROTOCOLS[protocol],
            reconnect_on_failure=False,
        )
        self._options: dict[str, Any] = {}
        if protocol == "5":
            session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            session.SessionExpiryInterval = SESSION_S
            self._options = {"clean_start": False, "properties": session}
        if config.username is not None:
            client.username_pw_set(config.username, config.password)
        if config.use_tls:
            client.tls_set_context(tls_context(config))
        client.connect_timeout = CONNACK_TIMEOUT_S
        client.on_connect = self._on_connect
        client.on_subscribe = lambda *_: self.subscribed.set()
        client.on_message = self._on_message
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    def __enter__(self) -> "Reader":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._client.unsubscribe(self._filter)  # the session stays for its time; it should not fill
        time.sleep(0.2)
        self._client.disconnect()
        self._thread.join(timeout=CONNACK_TIMEOUT_S)

    def _run(self) -> None:
        for host, port in self._addresses:
            if self._stop.is_set():
                return
            with contextlib.suppress(OSError):
                self._client.connect(host, port, self._config.keepalive_s, **self._options)
                self._client.loop_forever()
            self._stop.wait(random.uniform(0.2, 0.6))

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        client.subscribe(self._filter, qos=1)

    def _on_message(self, client: Any, userdata: Any, message: paho.MQTTMessage) -> None:
        now = time.monotonic()
        identity = str(json.loads(message.payload)["id"])
        times, first = self.arrived.get(identity, (0, now))
        self.arrived[identity] = (times + 1, first)
        self.bytes += len(message.payload)
