"""Draw the committed results as charts, and write their tables into the README: `python -m benchmarks.report`.

In the README, a table stands between `<!-- table: GROUP -->` and `<!-- end -->`, date, machine and versions of its run
between `<!-- run: GROUP -->` and `<!-- end -->`.
"""

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

from benchmarks.charts import figures, group_chart, unit_of
from benchmarks.results import Group, Row, read_groups

README = Path(__file__).parent / "README.md"
CHARTS = Path(__file__).parent / "charts"

REFERENCE = "ours, ONNX Runtime fp32"
_PLACE = re.compile(r"(<!-- (table|run): (.*?) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Write every chart and table."""
    groups = read_groups()
    CHARTS.mkdir(exist_ok=True)
    for path in CHARTS.glob("*.svg"):  # of results that are gone
        path.unlink()
    for group in groups.values():
        if len(group.rows) > len(products(group)) + 1:
            (CHARTS / f"{slug(group.name)}.svg").write_text(group_chart(group, floor_of(group, groups)), "utf-8")
    text = README.read_text(encoding="utf-8")
    README.write_text(filled(text, groups), encoding="utf-8")


def filled(text: str, groups: Mapping[str, Group]) -> str:
    """A text with every place in it filled anew."""

    def content(place: re.Match[str]) -> str:
        group = groups.get(place[3])
        if group is None:
            return f"{place[1]}(no results yet)\n{place[4]}"
        return place[1] + (_table(group, groups) if place[2] == "table" else _run(group)) + place[4]

    return _PLACE.sub(content, text)


def slug(name: str) -> str:
    """A group's name as that of a file."""
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")


def floor_of(group: Group, groups: Mapping[str, Group]) -> float | None:
    """Seconds of the reference's operations at the best rate of a matrix product in the same run, if both are known."""
    work = [row.facts["GFLOP"] for row in group.rows if row.name == REFERENCE and "GFLOP" in row.facts]
    rates = [rate(row) for other in groups.values() if other.source == group.source for row in products(other)]
    return work[0] / max(rates) if work and rates else None


def products(group: Group) -> list[Row]:
    """Its matrix products."""
    return [row for row in group.rows if row.kind == "product"]


def rate(row: Row) -> float:
    """GFLOP in a second."""
    return float(row.facts["GFLOP"]) / row.median


def _run(group: Group) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in group.versions.items())
    return textwrap.fill(f"{group.setting}: {versions}.", 120) + "\n"


def _table(group: Group, groups: Mapping[str, Group]) -> str:
    """The rows: time, its multiple of the reference's, and of the floor or the rate where that is known."""
    unit, size = unit_of(max(row.median for row in group.rows))
    reference = next((row.median for row in group.rows if row.name == REFERENCE), None)
    floor = floor_of(group, groups)
    head = [f"{group.name} ([raw](results/{group.source}))", unit]
    head += ["of ours"] if reference else []
    head += ["of the floor"] if floor else []
    head += ["GFLOP/s"] if any("GFLOP" in row.facts for row in group.rows) else []
    lines = [head, ["---"] * len(head)]
    for row in group.rows:
        cells = [row.name, figures(row.median / size)]
        cells += [f"{row.median / reference:.2f}"] if reference else []
        cells += [f"{row.median / floor:.2f}" if row.name == REFERENCE else ""] if floor else []
        cells += [f"{rate(row):.0f}" if "GFLOP" in row.facts else ""] if "GFLOP/s" in head else []
        lines.append(cells)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    main()
