"""The committed results: rows by group, as pytest-benchmark wrote them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"

# Words in the names of what we did not write, or wrote only to compare with.
_OTHERS = (
    "torchvision",
    "nncf",
    "garden",
    "pillow",
    "pycocotools",
    "tensorflow_operator",
    "loop_of_resizes",
    "class_offset",
)
_PRODUCT = "product"


@dataclass(frozen=True)
class Row:
    """One case.

    Attributes:
        name: For readers.
        median: Seconds.
        spread: Distance between the quartiles, seconds; 0 where it was not kept.
        facts: What else was noted.
        kind: "ours", "other", or "product" for a matrix product.
    """

    name: str
    median: float
    spread: float
    facts: Mapping[str, Any]
    kind: str


@dataclass(frozen=True)
class Group:
    """Cases of one run that may be compared.

    Attributes:
        name: Of the group.
        rows: In the order in which they ran.
        source: File name of the results.
        setting: Date, processor, threads.
        versions: Of Python and packages, by name.
    """

    name: str
    rows: tuple[Row, ...]
    source: str
    setting: str
    versions: Mapping[str, str]


def read_groups(folder: Path = FOLDER) -> dict[str, Group]:
    """Every group of the committed results by name; of groups that ran twice, the newer."""
    groups: dict[str, Group] = {}
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        machine = content["machine"]
        threads = machine.get("threads", machine["cores"])
        setting = f"{content['datetime'][:10]}, {machine['cpu']}, {threads} threads"
        versions = {"Python": machine["python"]} | content["versions"]
        rows: dict[str, list[Row]] = {}
        for entry in content["benchmarks"]:
            rows.setdefault(entry["group"], []).extend(_rows(entry))
        groups |= {name: Group(name, tuple(found), path.name, setting, versions) for name, found in rows.items()}
    return groups


def _rows(entry: Mapping[str, Any]) -> Iterator[Row]:
    facts, stats = entry["extra_info"], entry["stats"]
    if "wall_s" in facts:  # contestants that took turns inside one benchmark
        for name, seconds in facts["wall_s"].items():
            yield Row(name.replace("_", " "), seconds, 0.0, {}, _kind(name))
    else:
        name = facts.get("case") or entry["name"].removeprefix("test_").replace("_", " ")
        yield Row(name, stats["median"], stats["iqr"], facts, _kind(entry["name"] + name))


def _kind(name: str) -> str:
    name = name.lower().replace("model garden", "garden")
    return _PRODUCT if _PRODUCT in name else "other" if any(word in name for word in _OTHERS) else "ours"
