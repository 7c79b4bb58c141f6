"""What the pages show, as text: HTML with everything that came from the network escaped, and CSV."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from html import escape
from typing import Any

from edge.draw import COLOURS
from edge.labels import EMOTIONS, UNCERTAIN
from edge.web.fleet import CameraView

SYMBOLS = {"online": "●", "offline": "✖", "stopped": "■", "paused": "❚❚", "unknown": "?"}
FORMULA = ("=", "+", "-", "@", "\t", "\r", *"\uff1d\uff0b\uff0d\uff20")  # wide ones too, for some
EVENT_COLUMNS = ("at", "device", "camera", "type", "face", "emotion", "previous", "confidence")
HEX_COLOURS = {name: "#{2:02x}{1:02x}{0:02x}".format(*colour) for name, colour in COLOURS.items()}
COLOURS_STYLE = ":root{" + "".join(f"--{name}:{colour};" for name, colour in HEX_COLOURS.items()) + "}"


def as_csv(events: list[dict[str, Any]]) -> str:
    """Events as a table. A cell that a spreadsheet would take for a formula is quoted: names come from the network."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["id", *EVENT_COLUMNS])
    for event in events:
        cells = [event[name] for name in ("id", *EVENT_COLUMNS)]
        writer.writerow([f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell for cell in cells])
    return text.getvalue()


def summary(view: CameraView) -> str:
    """A line that a screen reader hears when it changes."""
    if view.status != "online":
        return f"{SYMBOLS.get(view.status, '?')} {view.status}"
    if view.emotion is None:
        return (
            "● online, nobody in view" if view.faces_count == 0 else f"● online, faces: {view.faces_count}, uncertain"
        )
    share = "" if view.confidence is None else f" {_percent(view.confidence)}"
    return f"● online, faces: {view.faces_count}, {view.emotion}{share}"


def place(view: CameraView) -> str:
    """Device and camera, in this order in whatever direction each is written."""
    return f"<bdi>{escape(view.device)}</bdi> / <bdi>{escape(view.name)}</bdi>"


def card(view: CameraView) -> str:
    """The inside of a camera's card."""
    name = view.emotion or (UNCERTAIN if view.faces_count else None) if view.status == "online" else None
    shown = f"{_swatch(name)}{name}" if name else "&nbsp;"
    faces = f", faces: {view.faces_count}" if name else ""
    return (
        f"<b>{place(view)}</b>"
        f'<span data-status="{escape(view.status)}"><i>{SYMBOLS.get(view.status, "?")}</i> {escape(view.status)}{faces}'
        f'</span><div class="emotion">{shown}</div>'
    )


def count(views: Sequence[CameraView]) -> str:
    """How many cameras there are in each state."""
    states = Counter(view.status for view in views)
    order = (*SYMBOLS, *sorted(states.keys() - SYMBOLS.keys()))
    return ", ".join(f"{states[status]} {status}" for status in order if states[status])


def no_broker(brokers: Sequence[str], problem: str) -> str:
    """Why nothing new comes. problem: what the log says of it, if anything."""
    return (
        f"There is no connection to the broker {' or '.join(brokers)}. It is tried again; until then nothing new comes,"
        f" and no device's state is known.{f' ({problem})' if problem else ''}"
    )


def _swatch(name: str) -> str:
    return f'<span class="swatch" style="background:var(--{name})"></span>'


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def face_tables(faces: list[dict[str, Any]]) -> str:
    """A table of scores per face."""
    tables = []
    for face in faces:
        rows = "".join(
            f'<tr><th scope="row">{_swatch(emotion)}{emotion}</th>'
            f'<td><meter value="{value:.2f}" style="--fill:var(--{emotion});--share:{value:.0%}"'
            f' aria-label="{emotion} of face {face["track"]}"></meter></td>'
            f"<td>{_percent(value)}</td></tr>"
            for emotion, value in face["scores"].items()
        )
        name = f"face {face['track']}: {face['emotion'] or UNCERTAIN}"
        tables.append(f'<div class="face"><table><caption>{name}</caption>{rows}</table></div>')
    return f'<div class="faces">{"".join(tables)}</div>' if tables else '<p class="soft">No live faces.</p>'


def boxes(faces: list[dict[str, Any]]) -> str:
    """The faces' boxes and labels over a picture of the camera, whatever its size: `at` is in shares of the frame."""
    shown = ""
    for face in faces:
        name = face["emotion"] or UNCERTAIN
        x, y, w, h = (f"{100 * side:.2f}%" for side in face["at"])
        shown += (
            f'<div class="box" style="left:{x};top:{y};width:{w};height:{h};--fill:var(--{name})">'
            f"<span>{face['track']} {name}</span></div>"
        )
    return shown


def picture_state(view: CameraView, wanted: bool, shown: bool) -> str:
    """Why there is no live picture, or what becomes of the one that there is."""
    if view.allows_pictures is False:
        return "This device sends no pictures: mqtt.snapshots is off in its settings."
    if not wanted:
        return ""
    if view.status != "online":
        return f"There is no picture while it is {view.status}."
    if shown:
        return "Sent while you look, and stored nowhere."
    return "Asked for a picture. It comes if the device's settings (mqtt.snapshots) and the broker allow it."


FIGURES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "Frames/s read": lambda stats: stats["fps_out"],
    "Frames/s given": lambda stats: stats["fps_in"],
    "Latency p95": lambda stats: f"{stats['latency_p95_ms']} ms",
    "Dropped": lambda stats: stats["dropped"],
    "Events waiting": lambda stats: stats["queue"],
    "Temperature": lambda stats: f"{stats['temperature_c']:.0f} °C",
    "Up for": lambda stats: f"{stats['uptime_s'] // 3600} h {stats['uptime_s'] // 60 % 60} min",
    "Network": lambda stats: f"{stats['model']} on {stats['runtime']}",
}


def health(stats: dict[str, Any], age_s: float) -> str:
    """Of a device, from its newest stats, heard so long ago; whatever is missing there is missing here."""
    cells = ""
    for name, figure in FIGURES.items():
        try:
            value = escape(str(figure(stats)))
        except KeyError:  # not measured
            value = "-"
        cells += f"<div><dt>{name}</dt><dd>{value}</dd></div>"
    heard = f"heard {_ago(age_s)} ago" if stats else "not heard yet"
    return f'<h2>Health <small class="soft">{heard}</small></h2><dl class="health">{cells}</dl>'


def _ago(age_s: float) -> str:
    for unit, seconds in (("h", 3600), ("min", 60)):
        if age_s >= 2 * seconds:
            return f"{age_s // seconds:.0f} {unit}"
    return f"{max(0.0, age_s):.0f} s"


def chart_options() -> dict[str, Any]:
    """Of the history: a line per emotion."""
    now = datetime.now(timezone.utc).timestamp() * 1000
    return {
        "animation": False,
        "color": [HEX_COLOURS[emotion] for emotion in EMOTIONS],
        "legend": {"top": 0, "icon": "roundRect", "itemWidth": 12, "itemHeight": 12},
        "tooltip": {"trigger": "axis", ":valueFormatter": "(value) => value == null ? '-' : Math.round(value) + ' %'"},
        "grid": {"left": 50, "right": 15, "top": 60, "bottom": 30},
        "xAxis": {"type": "time", "min": now - 900_000, "max": now, "axisLabel": {"hideOverlap": True}},
        "yAxis": {
            "type": "value",
            "min": 0,
            "max": 100,
            "axisLabel": {"formatter": "{value} %"},
            "splitLine": {"lineStyle": {"opacity": 0.3}},
        },
        "series": [
            {"name": emotion, "type": "line", "showSymbol": False, "lineStyle": {"width": 2.5}, "data": []}
            for emotion in EMOTIONS
        ],
    }
