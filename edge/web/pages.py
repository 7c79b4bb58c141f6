"""The pages: devices with their faces and history, events, and the visitor's own camera."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from html import escape
from typing import Any

from nicegui import ui

from edge.config import MqttConfig
from edge.labels import EMOTIONS, UNCERTAIN
from edge.watch import Subscriber
from edge.web import render
from edge.web.cameras import REFRESH_S, Cameras
from edge.web.fleet import Fleet
from edge.web.pictures import Pictures

CONNECTION_REFRESH_S = 0.5
EVENTS_SHOWN = 100  # beyond them the export is of use
# Relative, as all addresses here: a reverse proxy may put the pages below a path.
LINKS = {"./": "Cameras", "events": "Events", "try": "Try it"}
# The newest thing known of an event first, so that it is seen on a phone too.
TABLE_COLUMNS = ("at", "emotion", "type", "device", "camera", "face", "previous", "confidence")
# In the visitor's own time, as the chart is; the day where it is another than today.
LOCAL_TIME = """(text) => {
  const at = new Date(text), two = (number) => String(number).padStart(2, "0");
  if (isNaN(at)) return text;
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} `;
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return (at.toDateString() === new Date().toDateString() ? "" : day) + time
    + "." + String(at.getMilliseconds()).padStart(3, "0");
}"""
EMOTION_CELL = """<q-td :props="props"><span class="swatch" :style="'background:var(--' + props.value + ')'"></span
>{{ props.value }}</q-td>"""
THEME_COOKIE = "emotiond-theme"
TURN = f"""() => {{
  const dark = document.body.classList.contains("body--dark");
  document.cookie = "{THEME_COOKIE}=" + (dark ? "light" : "dark") + "; path=/; max-age=31536000; samesite=strict";
  emit(dark);
}}"""


def add(fleet: Fleet, mqtt: MqttConfig, pictures: Pictures, subscriber: Subscriber) -> None:
    """Make the pages of NiceGUI's app."""

    @ui.page("/", title="emotiond: cameras")
    def cameras(device: str = "", camera: str = "") -> None:
        with _page("Cameras", "./"):
            _Connection(mqtt, subscriber)
            Cameras(fleet, mqtt, pictures, (device, camera))

    @ui.page("/events", title="emotiond: events")
    def events() -> None:
        with _page("Events", "events"):
            _Connection(mqtt, subscriber)
            _Events(fleet)
            ui.add_body_html('<script src="static/table.js" defer></script>')

    @ui.page("/try", title="emotiond: try it")
    def try_it() -> None:
        with _page("Try it on your own camera", "try"):
            ui.html(TRY_IT, sanitize=False)
            ui.add_body_html('<script src="static/try.js" defer></script>')


TRY_IT = f"""
<p class="text">Your camera's pictures go to this emotiond server over this page's connection, are looked at, and are
forgotten at once: <strong>no picture is stored, there or here</strong>, and nobody else sees them. It reads the
apparent expression of a face, not what a person feels.</p>
<p><button id="try-start" class="action">Start my camera</button>
<button id="try-stop" class="action" hidden>Stop</button></p>
<p id="try-status" role="status" aria-live="polite">The camera is off.</p>
<div id="try-shown" class="beside" hidden><div id="try-stage">
<canvas id="try-canvas" width="640" height="480" role="img"
 aria-label="Your camera's picture with the faces found"></canvas><p id="try-rate" class="soft"></p></div>
<div id="try-faces" class="faces reading" data-emotions="{" ".join(EMOTIONS)}"
 data-colours="{" ".join(render.HEX_COLOURS[name] for name in (*EMOTIONS, UNCERTAIN))}"></div></div>
"""


@contextmanager
def _page(heading: str, path: str) -> Iterator[None]:
    ui.add_head_html(f'<link rel="stylesheet" href="static/style.css"><style>{render.COLOURS_STYLE}</style>')
    request = ui.context.client.request
    kept = request.cookies.get(THEME_COOKIE) if request is not None else None
    dark = ui.dark_mode({"dark": True, "light": False}.get(kept or ""))  # None: as the browser likes it
    anchors = "".join(
        f'<a href="{target}"{" aria-current=page" if target == path else ""}>{name}</a>'
        for target, name in LINKS.items()
    )
    with ui.header().classes("bar"):
        ui.label("emotiond").classes("brand")
        ui.html(f'<nav aria-label="Pages">{anchors}</nav>', sanitize=False)
        ui.space()

        def turn(event: Any) -> None:
            dark.value = not event.args

        button = ui.button("◐").props('flat dense text-color=white aria-label="Dark / light" title="Dark / light"')
        button.on("click", turn, js_handler=TURN)
    with ui.element("div").classes("page"):
        ui.html(f"<h1>{escape(heading)}</h1>", sanitize=False)
        yield


class _Connection:
    """Says when the broker is not there, or refuses: what stands below is old then."""

    def __init__(self, mqtt: MqttConfig, subscriber: Subscriber) -> None:
        self._mqtt, self._subscriber = mqtt, subscriber
        self._said = ui.label().props("role=alert").classes("warning")
        self._refresh()
        ui.timer(CONNECTION_REFRESH_S, self._refresh)

    def _refresh(self) -> None:
        problem = self._subscriber.problem
        text = problem if self._subscriber.connected else render.no_broker(self._mqtt.brokers, problem)
        self._said.set_visibility(bool(text))
        self._said.text = text


class _Events:
    """The newest events, filtered, and as a file."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet, self._version = fleet, -1
        with ui.row().classes("line"):
            self._text = ui.input("Device or camera", on_change=self._filter).props("clearable")
            self._emotion = ui.select(
                ["any", *EMOTIONS, UNCERTAIN], value="any", label="Emotion", on_change=self._filter
            ).classes("field")
            self._type = ui.select(
                ["any", "new", "update", "end"], value="any", label="Type", on_change=self._filter
            ).classes("field")
            ui.button("Export as CSV", on_click=self._export).props("no-caps").style("background:#16527f !important")
        self._counted = ui.label().classes("soft")
        columns = [
            {"name": name, "label": name.capitalize(), "field": name, "align": "left", "sortable": True}
            for name in TABLE_COLUMNS
        ]
        columns[0] |= {"label": "Time", ":format": LOCAL_TIME}
        columns[-1] |= {":format": "(value) => Math.round(100 * value) + ' %'"}
        self._table = ui.table(columns=columns, rows=[], row_key="id", pagination=25)
        self._table.add_slot("body-cell-emotion", EMOTION_CELL)
        self._refresh()
        ui.timer(REFRESH_S, self._refresh)

    def _filter(self) -> None:
        self._version = -1
        self._refresh()

    def _chosen(self) -> Iterator[dict[str, Any]]:
        text = (self._text.value or "").lower()
        return (
            event
            for event in self._fleet.events()
            if text in f"{event['device']}/{event['camera']}".lower()
            and self._emotion.value in ("any", event["emotion"])
            and self._type.value in ("any", event["type"])
        )

    def _refresh(self) -> None:
        if self._version != self._fleet.version:
            self._version = self._fleet.version
            chosen = self._chosen()
            rows = list(itertools.islice(chosen, EVENTS_SHOWN))
            others = sum(1 for _ in chosen)
            self._table.rows = rows
            self._counted.text = (
                f"The newest {EVENTS_SHOWN} of {EVENTS_SHOWN + others:,}; the export has all of them." if others else ""
            )

    def _export(self) -> None:
        ui.download.content(render.as_csv(list(self._chosen())), f"emotiond-events-{datetime.now():%Y%m%d-%H%M%S}.csv")
