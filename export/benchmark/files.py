"""The files of a comparison: its numbers, and a chart of accuracy against latency."""

import json
from pathlib import Path
from typing import Any

from export.benchmark.comparison import Comparison, Row
from maskrcnn.evaluation.speed import TOTAL
from maskrcnn.inspection.charts import Point, bar_chart, shorten, trade_off_chart
from runtime.atomic import atomic_write, check_output

NUMBERS_FILE, CHART_FILE = "benchmark.json", "benchmark.svg"


def check_outputs(folder: Path, *, overwrite: bool) -> None:
    """Raise OutputError if `write_files` would refuse to write to a folder."""
    for name in (NUMBERS_FILE, CHART_FILE):
        check_output(folder / name, overwrite=overwrite)


def write_files(found: Comparison, folder: Path, *, overwrite: bool) -> list[Path]:
    """Write the numbers and the chart; return their paths."""
    numbers, chart = folder / NUMBERS_FILE, folder / CHART_FILE
    with atomic_write(numbers, overwrite=overwrite) as path:
        path.write_text(json.dumps(found.to_dict(), indent=1) + "\n", encoding="utf-8")
    figure = _figure(found)
    with atomic_write(chart, overwrite=overwrite) as path:
        figure.savefig(path, format="svg")
    return [numbers, chart]


def _figure(found: Comparison) -> Any:
    """Draw accuracy against latency or, without accuracy, only latency."""
    ran = [row for row in found.rows if row.rounds]
    if not found.against or all(row.average_precision is None for row in ran):
        return bar_chart(
            {f"{_name(found, row)}, {row.threads}": row.milliseconds[TOTAL] for row in ran}, "", "milliseconds"
        )
    series: dict[str, list[Point]] = {}
    for row in ran:
        if row.average_precision is not None:
            point = Point(
                row.milliseconds[TOTAL], row.average_precision, "" if row.threads is None else f"{row.threads}"
            )
            series.setdefault(_name(found, row), []).append(point)
    best = ran[found.best]
    floor = (best.average_precision or 0) + (best.drop or 0) - found.max_drop
    return trade_off_chart(
        series,
        Point(best.milliseconds[TOTAL], best.average_precision or 0, ""),
        floor,
        ("milliseconds per image", f"mask AP against {found.against}"),
        "Latency and accuracy, with the number of threads",
    )


def _name(found: Comparison, row: Row) -> str:
    """Name what the rows of all numbers of threads share."""
    return f"{row.engine} {row.precision} ({row.device}, {shorten(found.name(row))})"
