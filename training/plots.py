"""The report's pictures, one function each: numbers in, a matplotlib figure out."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from edge.labels import EMOTIONS
from training.dataset import USAGES, Dataset
from training.metrics import BINS, Reliability

INK, MUTED, GRID = "#22303c", "#6b7a88", "#e3e8ec"
# Okabe and Ito's palette, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, RED = "#0072b2", "#e69f00", "#009e73", "#d55e00"
STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "figure.dpi": 110,
}


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, npt.NDArray[np.object_]]:
    """A figure and its axes as (rows, columns); sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


@mpl.rc_context(STYLE)
def class_distribution(dataset: Dataset) -> Figure:
    """Rows per emotion and usage, as bars with their numbers."""
    figure, axes = _figure(8.5, 3.4)
    axis = axes[0, 0]
    usages = [index for index in range(len(USAGES)) if (dataset.usages == index).any()]
    place, thickness = np.arange(len(EMOTIONS)), 0.8 / len(usages)
    for number, usage in enumerate(usages):
        counts = np.bincount(dataset.labels[dataset.usages == usage], minlength=len(EMOTIONS))
        offset = (number - (len(usages) - 1) / 2) * thickness
        colour = (BLUE, ORANGE, GREEN, RED)[usage]
        bars = axis.bar(place + offset, counts, thickness, label=USAGES[usage], color=colour)
        axis.bar_label(bars, fmt="{:,.0f}", fontsize=8, color=MUTED)
    axis.set_xticks(place, EMOTIONS)
    axis.grid(axis="x", visible=False)
    axis.set_ylabel("rows")
    axis.legend()
    return figure


def _hide_frame(axis: Axes) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(False)


@mpl.rc_context(STYLE)
def faces(images: npt.NDArray[np.uint8], captions: Sequence[str], columns: int) -> Figure:
    """(n, 48, 48) pictures in a grid, each with a caption below."""
    rows = -(-len(images) // columns)
    height = 1.32 if any(captions) else 1.05
    figure, axes = _figure(columns * 1.06, max(1, rows) * height, max(1, rows), columns)
    for axis in axes.flat:
        _hide_frame(axis)
    for axis, image, caption in zip(axes.flat, images, captions, strict=False):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set_xlabel(caption, fontsize=7.5, color=INK, labelpad=2)
    return figure


@mpl.rc_context(STYLE)
def sample_faces(dataset: Dataset, per_class: int, random: np.random.Generator) -> Figure:
    """Pictures of each emotion, one row each."""
    chosen = []
    for label in range(len(EMOTIONS)):
        members = np.flatnonzero(dataset.labels == label)
        chosen.append(random.choice(members, per_class, replace=len(members) < per_class) if len(members) else [])
    figure, axes = _figure(per_class * 0.86 + 0.8, len(EMOTIONS) * 0.88, len(EMOTIONS), per_class)
    for row, members in enumerate(chosen):
        for column in range(per_class):
            axis = axes[row, column]
            _hide_frame(axis)
            if len(members):
                axis.imshow(dataset.images[members[column]], cmap="gray", vmin=0, vmax=255)
        axes[row, 0].set_ylabel(EMOTIONS[row], rotation=0, ha="right", va="center")
    return figure


@mpl.rc_context(STYLE)
def augmented(originals: npt.NDArray[np.uint8], versions: Sequence[npt.NDArray[np.float32]]) -> Figure:
    """Originals in the first row, and what the network saw of them in epochs below."""
    figure, axes = _figure(len(originals) * 0.86 + 0.8, (1 + len(versions)) * 0.88, 1 + len(versions), len(originals))
    for row, pictures in enumerate([originals, *versions]):
        for column, picture in enumerate(pictures):
            _hide_frame(axes[row, column])
            axes[row, column].imshow(picture, cmap="gray", vmin=0, vmax=255)
        name = "original" if row == 0 else f"epoch {row}"
        axes[row, 0].set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


@mpl.rc_context(STYLE)
def curves(history: Sequence[dict[str, float]]) -> Figure:
    """Loss, accuracy and learning rate over the epochs."""
    figure, axes = _figure(10.5, 3.2, 1, 3)
    epochs = [entry["epoch"] for entry in history]
    lines = (
        (("loss", "training, augmented", MUTED), ("val_loss", "validation", BLUE)),
        (
            ("accuracy", "training, augmented", MUTED),
            ("val_accuracy", "validation, FER2013's labels", BLUE),
            ("val_majority", "validation, clear FER+ majority", ORANGE),
        ),
        (("learning_rate", "", GREEN),),
    )
    for axis, title, drawn in zip(axes[0], ("Loss", "Accuracy", "Learning rate"), lines, strict=True):
        for key, name, colour in drawn:
            values = [entry[key] for entry in history]
            if np.isfinite(values).any():
                axis.plot(
                    epochs, values, color=colour, label=name, linewidth=1.8, marker="o" if len(epochs) < 3 else ""
                )
        axis.set_title(title)
        axis.set_xlabel("epoch")
        if len(drawn) > 1:
            axis.legend(fontsize=8)
    best = min(history, key=lambda entry: entry["val_loss"])
    axes[0, 0].axvline(best["epoch"], color=GRID, zorder=0)
    axes[0, 0].plot(best["epoch"], best["val_loss"], "o", color=BLUE)
    return figure


@mpl.rc_context(STYLE)
def confusion(counts: npt.NDArray[np.int64]) -> Figure:
    """The matrix as counts and as shares of each true emotion."""
    figure, axes = _figure(11, 5.0, 1, 2)
    rates = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for axis, values, title, form in (
        (axes[0, 0], counts, "Counts", "{:,.0f}"),
        (axes[0, 1], rates, "Rates", "{:.0%}"),
    ):
        axis.imshow(rates, cmap="Blues", vmin=0, vmax=1)
        for true, predicted in np.ndindex(values.shape):
            colour = "white" if rates[true, predicted] > 0.5 else INK
            axis.text(
                predicted, true, form.format(values[true, predicted]), ha="center", va="center", color=colour, size=8
            )
        axis.set_xticks(range(len(EMOTIONS)), EMOTIONS, rotation=35, ha="right")
        axis.set_yticks(range(len(EMOTIONS)), EMOTIONS)
        axis.grid(visible=False)
        axis.set_title(title)
        axis.set_xlabel("predicted")
        axis.set_ylabel("true")
    return figure


@mpl.rc_context(STYLE)
def calibration(reliability: Reliability) -> Figure:
    """Reliability diagram, and how often each confidence occurs."""
    figure, axes = _figure(8.5, 3.6, 1, 2)
    diagram, histogram = axes[0]
    middle = (np.arange(BINS) + 0.5) / BINS
    filled = reliability.count > 0
    diagram.plot([0, 1], [0, 1], "--", color=MUTED, linewidth=1, label="perfectly calibrated")
    diagram.bar(middle[filled], reliability.accuracy[filled], 0.9 / BINS, color=BLUE, label="accuracy")
    gap = reliability.confidence[filled] - reliability.accuracy[filled]
    bottom = reliability.accuracy[filled]
    diagram.bar(middle[filled], gap, 0.9 / BINS, bottom=bottom, color=RED, alpha=0.35, label="gap to the confidence")
    diagram.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    diagram.set_title(f"Reliability: calibration error {reliability.error:.3f}")
    diagram.legend(fontsize=8)
    histogram.bar(middle, reliability.count, 0.9 / BINS, color=BLUE)
    histogram.set(xlim=(0, 1), xlabel="confidence", ylabel="faces")
    histogram.set_title("Confidence")
    return figure


@mpl.rc_context(STYLE)
def recall_by_format(per_class: dict[str, dict[str, float]]) -> Figure:
    """float32 beside int8, per emotion; `per_class` as in parity.json."""
    figure, axes = _figure(8.5, 3.2)
    axis, place = axes[0, 0], np.arange(len(per_class))
    for name, offset, colour in (("float32", -0.2, MUTED), ("int8", 0.2, BLUE)):
        axis.bar(place + offset, [entry[name] for entry in per_class.values()], 0.38, color=colour, label=name)
    for position, entry in zip(place, per_class.values(), strict=True):
        top = max(entry["float32"], entry["int8"])
        text = f"{100 * entry['change']:+.1f}"
        axis.annotate(text, (position, top), (0, 2), textcoords="offset points", ha="center", fontsize=8, color=MUTED)
    axis.set_xticks(place, list(per_class))
    axis.set(ylabel="recall", ylim=(0, 1.05))
    axis.grid(axis="x", visible=False)
    axis.legend(loc="upper right", ncols=2)
    return figure
