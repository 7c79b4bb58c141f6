"""The pages: devices with their faces and history, events, and the visitor's own camera."""

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from html import escape
from typing import Any

from nicegui import ui

from edge.config import MqttConfig
from edge.draw import UNCERTAIN
from edge.labels import EMOTIONS
from edge.web import render
from edge.web.fleet import SPANS_S, CameraView, Fleet
from edge.web.pictures import Pictures

REFRESH_S = 0.15  # an event is to be seen within a quarter of a second
HISTORY_REFRESH_S = 2.0
EVENTS_SHOWN = 100  # beyond them the export is of use


def add(fleet: Fleet, mqtt: MqttConfig, pictures: Pictures) -> None:
    """Make the pages of NiceGUI's app."""

    @ui.page("/", title="emotiond: cameras")
    def cameras() -> None:
        with _page("Cameras", "/"):
            _Cameras(fleet, mqtt, pictures)

    @ui.page("/events", title="emotiond: events")
    def events() -> None:
        with _page("Events", "/events"):
            _Events(fleet)

    @ui.page("/try", title="emotiond: try it")
    def try_it() -> None:
        with _page("Try it on your own camera", "/try"):
            ui.html(TRY_IT, sanitize=False).classes("w-full")
            ui.add_body_html('<script src="/static/try.js" defer></script>')


TRY_IT = f"""
<p>Your camera's pictures go to this emotiond server over this page's connection, are looked at, and are forgotten at
once: <strong>no picture is stored, there or here</strong>, and nobody else sees them. It reads the apparent expression
of a face, not what a person feels.</p>
<p><button id="try-start" class="action">Start my camera</button>
<button id="try-stop" class="action" hidden>Stop</button></p>
<p id="try-status" role="status" aria-live="polite">The camera is off.</p>
<div id="try-stage"><canvas id="try-canvas" width="640" height="480" role="img"
 aria-label="Your camera's picture with the faces found"></canvas></div>
<p id="try-rate" class="soft"></p>
<div id="try-faces" class="faces" data-emotions="{" ".join(EMOTIONS)}"
 data-colours="{" ".join(render.HEX_COLOURS[name] for name in (*EMOTIONS, UNCERTAIN))}"></div>
"""


@contextmanager
def _page(heading: str, path: str) -> Iterator[None]:
    ui.add_head_html('<link rel="stylesheet" href="/static/style.css">')
    dark = ui.dark_mode(None)
    links = {"/": "Cameras", "/events": "Events", "/try": "Try it"}
    anchors = "".join(
        f'<a href="{target}"{" aria-current=page" if target == path else ""}>{name}</a>'
        for target, name in links.items()
    )
    with ui.header().classes("items-center gap-4 px-4 py-2"):
        ui.label("emotiond").classes("text-lg font-bold")
        ui.html(f'<nav aria-label="Pages">{anchors}</nav>', sanitize=False)
        ui.space()

        def turn() -> None:
            dark.value = dark.value is not True

        ui.button("Dark / light", on_click=turn).props("flat dense no-caps text-color=white")
    with ui.element("div").classes("w-full max-w-6xl mx-auto flex flex-col gap-4"):
        ui.html(f"<h1>{escape(heading)}</h1>", sanitize=False)
        yield


class _Cameras:
    """A card per camera, and all of one that was chosen."""

    def __init__(self, fleet: Fleet, mqtt: MqttConfig, pictures: Pictures) -> None:
        self._fleet = fleet
        self._chosen: tuple[str, str] | None = None
        self._span = next(iter(SPANS_S))
        self._cards: dict[tuple[str, str], tuple[ui.element, ui.html]] = {}
        self._empty = ui.label(f"No device has been heard of yet at the broker {mqtt.broker}.").classes("soft")
        self._grid = ui.element("div").classes("cameras")
        self._detail = ui.element("section").classes("panel w-full").props('aria-label="The chosen camera"')
        with self._detail:
            self._title = ui.html("", sanitize=False)
            self._now = ui.label().props("role=status aria-live=polite")
            self._picture = _Picture(pictures)
            with ui.element("div").classes("w-full flex flex-wrap items-start gap-4 py-2"):
                self._picture.make_place()
                self._faces = ui.html("", sanitize=False)
            self._health = ui.html("", sanitize=False).classes("w-full py-2")
            with ui.row().classes("items-center w-full"):
                ui.html("<h2>History</h2>", sanitize=False)
                spans = list(SPANS_S)
                ui.select(spans, value=self._span, label="Time shown", on_change=self._choose_span).classes("w-40")
                ui.select(
                    list(EMOTIONS),
                    value=list(EMOTIONS),
                    label="Emotions shown",
                    multiple=True,
                    on_change=self._choose_emotions,
                ).classes("w-72")
            self._chart = (
                ui.echart(render.chart_options())
                .classes("w-full h-72")
                .props('role=img aria-label="Mean scores per emotion over the time shown"')
            )
        self._shown: tuple[Any, ...] = ()
        self._refresh()
        self._refresh_history()
        ui.timer(REFRESH_S, self._refresh)
        ui.timer(HISTORY_REFRESH_S, self._refresh_history)

    def _choose(self, key: tuple[str, str]) -> None:
        if self._chosen != key:
            self._picture.turn_off()
        self._chosen = key
        self._refresh()
        self._refresh_history()

    def _choose_span(self, event: Any) -> None:
        self._span = event.value
        self._refresh_history()

    def _choose_emotions(self, event: Any) -> None:
        self._chart.options["legend"]["selected"] = {emotion: emotion in event.value for emotion in EMOTIONS}
        self._chart.update()

    def _refresh(self) -> None:
        views = {(view.device, view.name): view for view in self._fleet.cameras()}
        for key in [key for key in self._cards if key not in views]:
            self._cards.pop(key)[0].delete()
        if self._chosen not in views:
            self._chosen = next(iter(views), None)
        for key, view in views.items():
            if key not in self._cards:
                with self._grid, ui.element("button").classes("panel camera") as card:
                    card.on("click", lambda _, key=key: self._choose(key))
                    self._cards[key] = (card, ui.html("", sanitize=False))
            card, content = self._cards[key]
            pressed = "true" if key == self._chosen else "false"
            if card.props.get("aria-pressed") != pressed:
                card.props(f'aria-pressed="{pressed}"')
            _show(content, render.card(view))
        self._empty.set_visibility(not views)
        self._detail.set_visibility(self._chosen is not None)
        if self._chosen is not None:
            self._refresh_detail(views[self._chosen])

    def _refresh_detail(self, view: CameraView) -> None:
        faces = view.live_faces(time.time())
        _show(self._title, f"<h2>{escape(view.device)} / {escape(view.name)}</h2>")
        self._now.text = render.summary(view)
        self._picture.refresh(view)
        _show(self._faces, render.face_tables(faces))
        _show(self._health, render.health(view.stats))

    def _refresh_history(self) -> None:
        views = {(view.device, view.name): view for view in self._fleet.cameras()}
        if self._chosen not in views:
            return
        now = time.time()
        with self._fleet.lock:
            series = views[self._chosen].history.series(now, SPANS_S[self._span])
        state = (self._chosen, self._span, series)
        if state == self._shown:
            return
        self._shown = state
        options = self._chart.options
        options["xAxis"]["min"], options["xAxis"]["max"] = (now - SPANS_S[self._span]) * 1000, now * 1000
        for index, line in enumerate(options["series"]):
            line["data"] = [[at * 1000, None if means is None else round(means[index], 3)] for at, means in series]
        self._chart.update()


class _Picture:
    """The camera's live picture, where its device allows it, while somebody wishes to see it."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._switch = ui.switch("Live picture")
        self._said = ui.label().props("role=status aria-live=polite").classes("soft")

    def make_place(self) -> None:
        """Where the picture is to stand."""
        self._image = ui.element("img").classes("picture")
        self._image.set_visibility(False)

    def turn_off(self) -> None:
        """Another camera is looked at only if that is wished for too."""
        self._switch.value = False

    def refresh(self, view: CameraView) -> None:
        """Show the newest, or say why there is none."""
        if view.allows_pictures is False:
            self.turn_off()
        self._switch.set_enabled(view.allows_pictures is not False)
        address = self._pictures.look(view) if self._switch.value and view.status == "online" else ""
        self._image.set_visibility(bool(address))
        if address and self._image.props.get("src") != address:
            self._image.props["src"] = address
            self._image.props["alt"] = f"What the camera {view.device} / {view.name} sees"
            self._image.update()
        self._said.text = render.picture_state(view, bool(self._switch.value), bool(address))


class _Events:
    """The newest events, filtered, and as a file."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet, self._version = fleet, -1
        with ui.row().classes("items-end gap-4"):
            self._text = ui.input("Device or camera", on_change=self._filter).props("clearable")
            self._emotion = ui.select(
                ["any", *EMOTIONS, UNCERTAIN], value="any", label="Emotion", on_change=self._filter
            ).classes("w-36")
            self._type = ui.select(
                ["any", "new", "update", "end"], value="any", label="Type", on_change=self._filter
            ).classes("w-28")
            ui.button("Export as CSV", on_click=self._export).props("no-caps").style("background:#16527f !important")
        columns = [
            {"name": name, "label": name.capitalize(), "field": name, "align": "left", "sortable": True}
            for name in render.EVENT_COLUMNS
        ]
        self._table = ui.table(columns=columns, rows=[], row_key="id", pagination=25).classes("w-full")
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
            self._table.rows = list(itertools.islice(self._chosen(), EVENTS_SHOWN))

    def _export(self) -> None:
        ui.download.content(render.as_csv(list(self._chosen())), f"emotiond-events-{datetime.now():%Y%m%d-%H%M%S}.csv")


def _show(element: ui.html, content: str) -> None:
    if element.content != content:
        element.content = content
