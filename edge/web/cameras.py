"""The page of all cameras, and of the one that is chosen everything that is known."""

import time
from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from edge.config import MqttConfig
from edge.labels import EMOTIONS
from edge.web import render
from edge.web.fleet import FINE_S, SPANS_S, CameraView, Fleet
from edge.web.pictures import Pictures

REFRESH_S = 0.15  # an event is to be seen within a quarter of a second
HISTORY_REFRESH_S = 2.0
CHART_AFTER_S = 0.05
FILTERED_FROM = 13  # cameras; fewer are seen at a glance


class Cameras:
    """A card per camera, and all of one that was chosen: the `wished` one, once it is known, else the first."""

    def __init__(self, fleet: Fleet, mqtt: MqttConfig, pictures: Pictures, wished: tuple[str, str]) -> None:
        self._fleet, self._wished = fleet, wished
        self._chosen: tuple[str, str] | None = None
        self._cards: dict[tuple[str, str], tuple[ui.element, ui.html]] = {}
        brokers = " or ".join(mqtt.brokers)
        self._empty = ui.label(f"No device has been heard of yet at the broker {brokers}.").classes("soft")
        with ui.row().classes("line") as self._all:
            self._filter = ui.input("Device or camera").props("clearable dense")
            self._counted = ui.label().props("role=status aria-live=polite").classes("soft")
        self._grid = ui.element("div").classes("cameras")
        self._detail = ui.element("section").classes("panel").props('aria-label="The chosen camera"')
        with self._detail:
            self._title = ui.html("", sanitize=False)
            self._now = ui.label().props("role=status aria-live=polite")
            self._picture = _Picture(pictures)
            with ui.element("div").classes("beside part"):
                self._picture.make_place()
                self._faces = ui.html("", sanitize=False).classes("reading")
            self._health = ui.html("", sanitize=False).classes("part")
            self._history = _History(fleet)
        self._refresh()
        ui.timer(REFRESH_S, self._refresh)

    def _choose(self, key: tuple[str, str]) -> None:
        self._wished = key
        # In the address it outlives the page, and can be kept and handed on.
        ui.navigate.history.replace("?" + urlencode({"device": key[0], "camera": key[1]}))
        self._refresh()

    def _refresh(self) -> None:
        views = {(view.device, view.name): view for view in self._fleet.cameras()}
        for key in [key for key in self._cards if key not in views]:
            self._cards.pop(key)[0].delete()
        present = self._chosen if self._chosen in views else next(iter(views), None)
        chosen = self._wished if self._wished in views else present
        if chosen != self._chosen:
            self._picture.turn_off()
            self._chosen = chosen
        wanted = (self._filter.value or "").lower()
        for place, (key, view) in enumerate(views.items()):
            if key not in self._cards:
                with self._grid, ui.element("button").classes("panel camera") as card:
                    card.on("click", lambda _, key=key: self._choose(key))
                    self._cards[key] = (card, ui.html("", sanitize=False))
                card.move(target_index=place)
            card, content = self._cards[key]
            card.set_visibility(wanted in f"{view.device} / {view.name}".lower())
            pressed = "true" if key == self._chosen else "false"
            if card.props.get("aria-pressed") != pressed:
                card.props(f'aria-pressed="{pressed}"')
            _show(content, render.card(view))
        self._empty.set_visibility(not views)
        self._filter.set_visibility(len(views) >= FILTERED_FROM)
        self._all.set_visibility(len(views) > 1)
        self._counted.text = render.count(list(views.values()))
        self._detail.set_visibility(self._chosen is not None)
        if self._chosen is not None:
            self._refresh_detail(views[self._chosen])

    def _refresh_detail(self, view: CameraView) -> None:
        now = time.time()
        faces = view.live_faces(now)
        _show(self._title, f"<h2>{render.place(view)}</h2>")
        self._now.text = render.summary(view)
        self._picture.refresh(view, faces)
        _show(self._faces, render.face_tables(faces))
        _show(self._health, render.health(view.stats, now - view.stats_at))
        self._history.choose(view)


class _Picture:
    """The camera's live picture, where its device allows it, while somebody wishes to see it."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._switch = ui.switch("Live picture").props("dense").classes("part")
        self._said = ui.label().props("role=status aria-live=polite").classes("soft")

    def make_place(self) -> None:
        """Where the picture is to stand."""
        with ui.element("div").classes("stage") as self._stage:
            self._image = ui.element("img").classes("picture")
            self._boxes = ui.html("", sanitize=False).props("aria-hidden=true")  # the tables say the same
        self._stage.set_visibility(False)

    def turn_off(self) -> None:
        """Another camera is looked at only if that is wished for too."""
        self._switch.value = False

    def refresh(self, view: CameraView, faces: list[dict[str, Any]]) -> None:
        """Show the newest, or say why there is none."""
        if view.allows_pictures is False:
            self.turn_off()
        self._switch.set_enabled(view.allows_pictures is not False)
        address = self._pictures.look(view) if self._switch.value and view.status == "online" else ""
        self._stage.set_visibility(bool(address))
        if address and self._image.props.get("src") != address:
            self._image.props["src"] = address
            self._image.props["alt"] = f"What the camera {view.device} / {view.name} sees"
            self._image.update()
        _show(self._boxes, render.boxes(faces) if address else "")
        self._said.text = render.picture_state(view, bool(self._switch.value), bool(address))


class _History:
    """A chart of the chosen camera's mean scores."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._view: CameraView | None = None
        self._span = next(iter(SPANS_S))
        self._shown: tuple[Any, ...] = ()
        with ui.row().classes("line"):
            ui.html("<h2>History</h2>", sanitize=False)
            ui.select(list(SPANS_S), value=self._span, label="Time shown", on_change=self._choose_span).classes("field")
            self._emotions = ui.select(
                list(EMOTIONS),
                value=list(EMOTIONS),
                label="Emotions shown",
                multiple=True,
                on_change=self._choose_emotions,
            ).classes("field")
        self._say_how_many()
        self._chart: ui.echart | None = None
        self._place = ui.element("div").classes("chart")
        ui.timer(CHART_AFTER_S, self._make_chart, once=True)
        ui.timer(HISTORY_REFRESH_S, self._refresh)

    def choose(self, view: CameraView) -> None:
        """Show another camera's, if it is another."""
        if view is not self._view:
            self._view = view
            self._refresh()

    def _make_chart(self) -> None:
        # A megabyte of program: the rest of the page does not wait for it.
        with self._place:
            self._chart = ui.echart(render.chart_options(), renderer="svg").classes("chart")
            self._chart.props('role=img aria-label="Mean scores per emotion over the time shown"')
        self._choose_emotions()
        self._refresh()

    def _choose_span(self, event: Any) -> None:
        self._span = event.value
        self._refresh()

    def _choose_emotions(self) -> None:
        self._say_how_many()
        if self._chart is not None:
            shown = {emotion: emotion in self._emotions.value for emotion in EMOTIONS}
            self._chart.options["legend"]["selected"] = shown
            self._chart.update()

    def _say_how_many(self) -> None:
        count = len(self._emotions.value)
        text = "all" if count == len(EMOTIONS) else ", ".join(self._emotions.value) or "none"
        self._emotions.props(f'display-value="{text}"')

    def _refresh(self) -> None:
        if self._view is None or self._chart is None:
            return
        now = time.time()
        with self._fleet.lock:
            series = self._view.history.series(now, SPANS_S[self._span])
        state = (self._view, self._span, series, now // FINE_S)  # its time goes on also while nobody is seen
        if state == self._shown:
            return
        self._shown = state
        options = self._chart.options
        options["xAxis"]["min"], options["xAxis"]["max"] = (now - SPANS_S[self._span]) * 1000, now * 1000
        for index, line in enumerate(options["series"]):
            line["data"] = [
                [at * 1000, None if means is None else round(100 * means[index], 1)] for at, means in series
            ]
        self._chart.update()


def _show(element: ui.html, content: str) -> None:
    if element.content != content:
        element.content = content
