"""COCO's `categories`: which are classes, which are the root of a tree or the background, and which are the same."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskrcnn.data.readers.findings import Findings, RowError
from maskrcnn.data.readers.json_rows import get, get_name, shown, whole
from maskrcnn.data.readers.picture_rows import BACKGROUND

_BACKGROUND_NAMES = (BACKGROUND, "background", "_background_", "__background__", "__ignore__")


@dataclass(frozen=True)
class Categories:
    """The classes of a COCO file.

    Attributes:
        names: By class id, background first.
        ids: Category id by class id; of categories that were joined, the first one.
        class_of: Class id by category id; None for a category that cannot be used.
    """

    names: tuple[str, ...]
    ids: Mapping[int, int]
    class_of: Mapping[int, int | None]


def read_categories(rows: list[Any], annotations: list[Any], path: Path, findings: Findings) -> Categories:
    """Return the classes, in the order of category ids.

    Exporters write categories that no object can have. A category without annotations is left out if it is called
    background, or if another category names it as its supercategory. Categories with the same name are joined.
    """
    valid: dict[int, tuple[str, str]] = {}  # category id: name, place in the file
    class_of: dict[int, int | None] = {}
    used = Counter(whole(row.get("category_id")) for row in annotations if isinstance(row, Mapping))
    parents = _parents(rows)
    for index, row in enumerate(rows):
        where = row_name(path, "categories", index, row)
        with findings.row(where) as notes:
            found = get(row, "id")
            category = whole(found)
            if category is None:
                raise RowError("wrong-type", f"id is {shown(found)}; expected an integer")
            if type(found) is not int:
                notes.converted("category-id-type", f"id is {shown(found)}, read as {category}")
            if category in class_of:
                raise RowError("duplicate-category", f"category id {shown(category)} is used twice")
            class_of[category] = None
            name = get_name(row, "name")
            if not used[category] and name.strip().casefold() in map(str.casefold, _BACKGROUND_NAMES):
                notes.converted("category-background", f"{shown(name)} has no annotations and is no class: left out")
            elif not used[category] and any(child != index for child in parents.get(name, ())):
                notes.converted(
                    "category-root",
                    f"{shown(name)} has no annotations and is the supercategory of others: it is no class and left out",
                )
            elif name == BACKGROUND:
                raise RowError("duplicate-category", f"the category name {BACKGROUND!r} is reserved for the background")
            else:
                valid[category] = name, where
    if not rows:
        findings.add("error", "no-categories", path.name, "it has no categories; expected at least one")
    return _numbered(valid, class_of, findings)


def _numbered(valid: Mapping[int, tuple[str, str]], class_of: dict[int, int | None], findings: Findings) -> Categories:
    first: dict[str, int] = {}
    for category in sorted(valid):
        name, where = valid[category]
        if name in first:
            message = f"its name {shown(name)} is also that of category {first[name]}: they are one class"
            findings.converted("category-joined", where, message)
        class_of[category] = list(first).index(name) + 1 if name in first else len(first) + 1
        first.setdefault(name, category)
    return Categories((BACKGROUND, *first), dict(enumerate(first.values(), 1)), class_of)


def _parents(rows: list[Any]) -> dict[str, list[int]]:
    """Return the rows that name each supercategory."""
    found: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        parent = row.get("supercategory") if isinstance(row, Mapping) else None
        if isinstance(parent, str):
            found.setdefault(parent, []).append(index)
    return found


def row_name(path: Path, key: str, index: int, row: Any) -> str:
    """Return file, list, index and id of a row, for messages."""
    name = row.get("id") if isinstance(row, dict) else None
    return f"{path.name} {key}[{index}]" + ("" if name is None else f" (id {shown(name)})")
