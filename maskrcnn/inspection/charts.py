"""Charts as matplotlib figures, and as SVG in the colors of the page. Only this file imports matplotlib."""

import hashlib
import re
import warnings
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import accumulate
from typing import Any, NamedTuple
from unicodedata import east_asian_width

import numpy as np
import numpy.typing as npt

from maskrcnn.evaluation.metrics import AveragePrecision
from runtime.errors import MissingPackageError
from runtime.one_line import one_line

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator
except ModuleNotFoundError as error:
    raise MissingPackageError(error.name or "matplotlib", "inspect", "drawing charts") from error

# On the page, this color is replaced by the color of the text around the chart, light or dark.
_INK = "#123456"
_FIRST, _SECOND = "#2f7de1", "#e8871e"
_CHANNELS = {"red": "#e04646", "green": "#2e9e4f", "blue": "#2f7de1"}
_STYLE: Any = {
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": _INK,
    "axes.titlesize": 10,
    "figure.titlesize": 10,
    "font.family": "sans-serif",
    "font.size": 9,
    "legend.frameon": False,
    "text.color": _INK,
    "text.parse_math": False,  # a class name may contain $
    "xtick.color": _INK,
    "ytick.color": _INK,
}
_SVG: Any = {"svg.fonttype": "none", "svg.hashsalt": "inspection"}
_MARKERS = "osD^vPX"
# Longest name that is not shortened, where wide letters count twice, and largest number of bars.
_LONGEST_NAME, _MOST_BARS = 28, 30


def precision_recall_chart(precision: AveragePrecision, title: str) -> Figure:
    """Return a chart of precision over recall; the area below is the average precision."""
    with mpl.rc_context(_STYLE):
        figure = Figure((4.6, 3.4), layout="constrained")
        axes = figure.add_subplot(xlim=(0, 1.02), ylim=(0, 1.05), xlabel="recall", ylabel="precision")
        figure.suptitle(title, wrap=True)
        axes.step(precision.recalls, precision.precisions, where="pre", color=_FIRST, linewidth=2)
        axes.fill_between(precision.recalls, precision.precisions, step="pre", color=_FIRST, alpha=0.15)
    return figure


def histogram_grid(
    values: Mapping[str, npt.NDArray[np.floating]],
    others: Mapping[str, npt.NDArray[np.floating]] | None = None,
    across: int = 4,
    bins: int = 60,
) -> Figure:
    """Return a histogram of each array, with the array of the same name in `others` drawn over it.

    Args:
        values: Arrays of any shape by title.
        others: Names that are not in `values` are ignored.
        across: Histograms side by side.
    """
    across = min(across, max(1, len(values)))
    down = -(-len(values) // across)
    with mpl.rc_context(_STYLE):
        figure = Figure((2.6 * across, 1.7 * down), layout="constrained")
        for place, (name, array) in enumerate(values.items(), 1):
            axes = figure.add_subplot(down, across, place)
            axes.set_title(shorten(name), fontsize=8)
            axes.set_yticks([])
            axes.tick_params(labelsize=7)
            rival = (others or {}).get(name)
            drawn = [each[np.isfinite(each)] for each in ([array] if rival is None else [array, rival])]
            if not all(each.size for each in drawn):
                continue
            ends = min(float(each.min()) for each in drawn), max(float(each.max()) for each in drawn)
            edges = np.linspace(ends[0], ends[1] if ends[1] > ends[0] else ends[0] + 1, bins + 1)
            for each, color in zip(drawn, (_FIRST, _SECOND), strict=False):
                counts, _ = np.histogram(each, edges)
                axes.stairs(counts, edges, fill=True, color=color, alpha=0.55)
    return figure


def overlaid_histograms(
    panels: Mapping[str, Mapping[str, npt.NDArray[np.floating]]], title: str, most_bins: int = 50
) -> Figure:
    """Return histograms two by two, each of one array or of two over each other, as shares of their values.

    Args:
        panels: Arrays [N] by name, by what they measure and its unit. The names are the same in all panels.
        title: Title of the chart.
        most_bins: Most bars of a histogram; few values have fewer.
    """
    names = list(dict.fromkeys(name for arrays in panels.values() for name in arrays))
    with mpl.rc_context(_STYLE):
        figure = Figure((4.8, 4.8), layout="constrained")
        figure.suptitle(title, fontsize=10)
        for place, (unit, arrays) in enumerate(panels.items(), 1):
            axes = figure.add_subplot(-(-len(panels) // 2), 2, place, xlabel=unit, ylabel="share (%)")
            known = {name: array[np.isfinite(array)] for name, array in arrays.items()}
            ends = np.array([(each.min(), each.max()) for each in known.values() if each.size])
            if not len(ends):
                continue
            low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
            bins = min(most_bins, 4 + 2 * int(max(each.size for each in known.values()) ** 0.5))
            edges = np.linspace(low, high if high > low else low + 1, bins + 1)
            for name, each in known.items():
                shares = 100 * np.histogram(each, edges)[0] / max(1, each.size)
                if name == names[0]:
                    axes.stairs(shares, edges, fill=True, color=_FIRST, alpha=0.7)
                else:
                    axes.stairs(shares, edges, color=_SECOND, linewidth=1.6)
        if len(names) > 1:
            handles = [Patch(color=_FIRST, alpha=0.7), Line2D([], [], color=_SECOND, linewidth=1.6)]
            figure.legend(handles, names, loc="outside lower center", ncols=2)
    return figure


def size_chart(sizes: npt.NDArray[np.integer], title: str) -> Figure:
    """Return a chart of sizes [N, 2] (height, width); the area of a point grows with the number of equal ones."""
    points, counts = np.unique(sizes, axis=0, return_counts=True)
    with mpl.rc_context(_STYLE):
        figure = Figure((4.6, 2.8), layout="constrained")
        axes = figure.add_subplot(title=title, xlabel="width (pixels)", ylabel="height (pixels)")
        axes.scatter(points[:, 1], points[:, 0], 20 + 180 * counts / max(1, counts.max(initial=0)), _FIRST, alpha=0.6)
        axes.set_xlim(0, 1.1 * points[:, 1].max(initial=1))
        axes.set_ylim(0, 1.1 * points[:, 0].max(initial=1))
    return figure


def channel_names(count: int) -> tuple[str, ...]:
    """Return the names of the channels of an image, with those of `_CHANNELS` if these are its channels."""
    if count == len(_CHANNELS):
        return tuple(_CHANNELS)
    return ("gray",) if count == 1 else tuple(f"channel {number}" for number in range(1, count + 1))


def value_chart(shares: npt.NDArray[np.floating], title: str) -> Figure:
    """Return a chart of the share of each sample value 0 to 255, [C, 256], with a line per channel."""
    with mpl.rc_context(_STYLE):
        figure = Figure((4.6, 2.8), layout="constrained")
        axes = figure.add_subplot(title=title, xlabel="value of a pixel", ylabel="share of pixels (%)", xlim=(0, 255))
        for number, (row, name) in enumerate(zip(shares, channel_names(len(shares)), strict=True)):
            axes.plot(100 * row, label=name, color=_CHANNELS.get(name, f"C{number}"), linewidth=1.2)
        axes.set_ylim(0, None)
        axes.legend(fontsize=8)
    return figure


def bar_chart(counts: Mapping[str, float], title: str, unit: str) -> Figure:
    """Return a chart of horizontal bars, longest first; the last of many bars is the sum of the rest."""
    rows = sorted(counts.items(), key=lambda row: -row[1])
    if len(rows) > _MOST_BARS:
        rest = rows[_MOST_BARS - 1 :]
        rows = [*rows[: _MOST_BARS - 1], (f"{len(rest)} others", sum(count for _, count in rest))]
    with mpl.rc_context(_STYLE):
        figure = Figure((5.0, 0.9 + 0.24 * max(1, len(rows))), layout="constrained")
        figure.suptitle(title, wrap=True)  # that of the axes would be cut where they are narrower
        axes = figure.add_subplot(xlabel=unit)
        places = np.arange(len(rows))
        axes.barh(places, [count for _, count in rows], color=_FIRST, alpha=0.8)
        axes.set_yticks(places, [shorten(name) for name, _ in rows])
        axes.invert_yaxis()
        for place, (_, count) in enumerate(rows):
            axes.annotate(f" {count:.4g}", (count, place), va="center", fontsize=8)
        axes.margins(x=0.12, y=0.01)
    return figure


def distribution_chart(values: npt.NDArray[np.number], title: str, unit: str, bins: int = 40) -> Figure:
    """Return a histogram; integers get one bar each, if there are not too many."""
    with mpl.rc_context(_STYLE):
        figure = Figure((4.6, 2.8), layout="constrained")
        figure.suptitle(title, wrap=True)
        axes = figure.add_subplot(xlabel=unit, ylabel="count")
        whole = values.dtype.kind in "iu"
        low, high = (int(values.min()), int(values.max())) if whole else (0, bins + 1)
        edges = (np.arange(low, high + 2) - 0.5).tolist() if high - low <= bins else bins
        axes.hist(values, edges, color=_FIRST, alpha=0.8)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        if whole:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


def curve_chart(curves: Mapping[str, Sequence[float]], title: str, unit: str) -> Figure:
    """Return a chart of lines over epochs, counted from 1; values may be NaN.

    A curve "val_NAME" is dashed and has the color of the curve NAME. The legend is beside the lines.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure((6.4, max(3.2, 0.7 + 0.2 * len(curves))), layout="constrained")
        axes = figure.add_subplot(title=title, xlabel="epoch", ylabel=unit)
        colors: dict[str, str] = {}
        for name, points in curves.items():
            own = name.removeprefix("val_")
            color = colors.setdefault(own, f"C{len(colors) % 10}")
            known = np.flatnonzero(np.isfinite(points))  # not every epoch has scores
            style: Any = {"linestyle": "--" if name != own in curves else "-", "marker": ".", "color": color}
            axes.plot(known + 1, np.asarray(points)[known], label=_curve_name(name), **style)
        if curves:
            figure.legend(loc="outside right upper", fontsize=8)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


def _curve_name(name: str) -> str:
    """Return a short name of a loss or a score, such as "val mask" for "val_mrcnn_mask_loss"."""
    short = name if name.removeprefix("val_") == "loss" else name.removesuffix("_loss")
    for long, brief in (("mrcnn_", ""), ("rpn", "RPN"), ("bbox", "box"), ("segm", "mask"), ("_ap", " AP")):
        short = short.replace(long, brief)
    return shorten(short.replace("_", " "))


class Point(NamedTuple):
    """A point of a chart, and what is written beside it."""

    x: float
    y: float
    text: str


def trade_off_chart(
    series: Mapping[str, Sequence[Point]], best: Point, floor: float, axes_names: tuple[str, str], title: str
) -> Figure:
    """Return a chart of points in series, of which less is better across and more is better up.

    Args:
        series: Points by name, in a color and shape of their own.
        best: The point to mark with a ring.
        floor: The lowest value that is good enough, drawn as a line.
        axes_names: Names of both axes.
        title: Title of the chart.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure((7.2, 3.8 + 0.1 * len(series)), layout="constrained")
        figure.suptitle(title, wrap=True)
        axes = figure.add_subplot(xlabel=axes_names[0], ylabel=axes_names[1])
        axes.axhline(floor, color=_INK, linewidth=0.8, linestyle="--", label="lowest allowed")
        axes.plot([best.x], [best.y], "o", markersize=15, color=_INK, fillstyle="none", label="fastest allowed")
        above: Any = {"xytext": (0, 9), "textcoords": "offset points", "ha": "center", "fontsize": 8}
        for place, (name, points) in enumerate(series.items()):
            marker, color = _MARKERS[place % len(_MARKERS)], f"C{place % 10}"
            across, up = [point.x for point in points], [point.y for point in points]
            axes.plot(across, up, marker=marker, markersize=7, color=color, linewidth=0.8, alpha=0.85, label=name)
            for point in points:
                axes.annotate(point.text, (point.x, point.y), **above)
        heights = [point.y for points in series.values() for point in points] + [floor]
        room = max(0.15 * (max(heights) - min(heights)), 0.001)
        axes.set_ylim(min(heights) - room, max(heights) + 2 * room)
        axes.set_xlim(0, 1.08 * max([best.x, *(point.x for points in series.values() for point in points)]))
        figure.legend(loc="outside lower left", ncols=2, fontsize=8)
    return figure


def to_svg(figure: Figure) -> str:
    """Return a figure as an SVG element that keeps text as text, takes the page's color and fills its column."""
    stream = BytesIO()
    with mpl.rc_context(_SVG), warnings.catch_warnings():
        # The browser draws letters that matplotlib's font lacks with its own fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue().decode("utf-8")
    element = text[text.index("<svg") :].replace(_INK, "currentColor")
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    # Ids must be unique on the page, but matplotlib uses the same ones in every chart.
    own = "chart-" + hashlib.sha256(element.encode()).hexdigest()[:10]
    element = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{own}-", element)
    # With a fixed size the chart could not fill its column; the view box stays.
    size = re.compile(r'(<svg[^>]*?) width="([\d.]+)pt" height="[\d.]+pt"')
    return size.sub(r'\1 style="--natural: \2pt"', element, count=1)


def shorten(name: str) -> str:
    """Return a name that fits next to a chart."""
    printable = one_line(name)
    widths = list(accumulate(2 if east_asian_width(sign) in "WF" else 1 for sign in printable))
    fitting = bisect_right(widths, _LONGEST_NAME)
    return printable if fitting == len(printable) else printable[: max(0, fitting - 1)] + "\N{HORIZONTAL ELLIPSIS}"
