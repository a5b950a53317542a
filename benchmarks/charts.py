"""Results as bars in an SVG that is dark for readers who have it dark."""

from io import BytesIO
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.results import Group

# Matplotlib draws with the first of each; the file names it, and browsers take the second for readers in the dark.
_INK, _PAPER = ("#1f2328", "#d9dee4"), ("#fefefe", "#0d1117")
_COLORS = {"ours": "#2f7de1", "other": "#e8871e", "product": "#8b949e"}
_LEGEND = {"ours": "ours", "other": "others", "product": "matrix product"}
_STYLE: Any = {
    "axes.edgecolor": _INK[0],
    "axes.facecolor": _PAPER[0],
    "axes.labelcolor": _INK[0],
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": _INK[0],
    "axes.titlesize": 10,
    "figure.facecolor": _PAPER[0],
    "font.family": "sans-serif",
    "font.size": 9,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "benchmarks",
    "text.color": _INK[0],
    "xtick.color": _INK[0],
    "ytick.color": _INK[0],
}
_BESIDE: Any = {
    "textcoords": "offset points",
    "va": "center",
    "fontsize": 8,
    "bbox": {"facecolor": _PAPER[0], "linewidth": 0, "pad": 0.5},  # a line behind it does not cross it out
}
_UNITS = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))


def group_chart(group: Group, floor: float | None = None) -> str:
    """A group as bars, in the order of the run.

    Args:
        group: Its rows.
        floor: Seconds below which nothing in float32 can be, drawn as a line.

    Returns:
        A whole SVG file.
    """
    rows = group.rows
    unit, size = unit_of(max(row.median for row in rows))
    with mpl.rc_context(_STYLE):
        longest = max(len(row.name) for row in rows)  # its label leaves room for title and setting beside it
        figure = Figure((6.4 + 0.08 * max(0, longest - 30), 1.1 + 0.27 * len(rows)), layout="constrained")
        axes = figure.add_subplot(xlabel=f"{unit} ({group.setting})", title=group.name)
        for place, row in enumerate(rows):
            whisker = {"xerr": row.spread / size / 2, "ecolor": _INK[0], "error_kw": {"linewidth": 0.8}}
            axes.barh(place, row.median / size, color=_COLORS[row.kind], height=0.7, **whisker)
            end = (row.median + row.spread / 2) / size
            axes.annotate(figures(row.median / size), (end, place), (4, 0), **_BESIDE)
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6 if floor is None else -1.1)
        axes.margins(x=0.13)
        if floor is not None:
            axes.axvline(floor / size, color=_INK[0], linewidth=1, linestyle="--")
            axes.annotate("floor of fp32", (floor / size, -0.8), (4, 0), **_BESIDE)
        kinds = [kind for kind in _COLORS if any(row.kind == kind for row in rows)]
        if len(kinds) > 1:
            handles = [mpl.patches.Patch(color=_COLORS[kind], label=_LEGEND[kind]) for kind in kinds]
            figure.legend(handles=handles, loc="outside lower right", ncols=len(kinds), fontsize=8)
        return _themed(figure)


def unit_of(seconds: float) -> tuple[str, float]:
    """The unit in which a time is best written, and its size in seconds."""
    return next((unit for unit in _UNITS if seconds >= unit[1]), _UNITS[-1])


def figures(value: float) -> str:
    """A number in three figures, zeros at its end included."""
    return f"{value:#.3g}".removesuffix(".")


def _themed(figure: Figure) -> str:
    stream = BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue().decode("utf-8")
    rules = []
    for name, (light, dark) in {"ink": _INK, "paper": _PAPER}.items():
        text = text.replace(light, f"var(--{name}, {light})")
        rules.append((f"--{name}: {light};", f"--{name}: {dark};"))
    lights, darks = (" ".join(side) for side in zip(*rules, strict=True))
    style = f"<style>:root {{ {lights} }} @media (prefers-color-scheme: dark) {{ :root {{ {darks} }} }}</style>"
    place = text.index(">", text.index("<svg")) + 1
    return f"{text[:place]}\n {style}{text[place:]}"
