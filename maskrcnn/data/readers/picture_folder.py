"""Finding the image files that annotations name.

Annotation tools write names of the computer they ran on: with backslashes, whole paths, percent signs, other normal
forms of Unicode. A name is converted only where it leads to a single file, and every rule that was used is a finding.
The file name alone, in another folder than the annotations say, may be another image: that must be asked for.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from maskrcnn.data.readers.findings import NO_PICTURES, Findings, Row, RowError
from maskrcnn.data.readers.json_rows import shown
from maskrcnn.errors import DatasetNotFoundError
from runtime.pictures.header import PICTURE_SUFFIXES

_RULES = {
    "backslashes": "a backslash is read as a slash",
    "url": "of a URL, the path is read",
    "query": "what follows a question mark is left out",
    "percent": "percent signs are decoded",
    "path": "of a path on another computer, only its end is read",
    "own-folder": "the name of the folder of the images is left out",
    "by-name": "the file name alone is looked up, as by_name=True (--by-name) asks",
    "unicode": "the name on disk has another normal form of Unicode",
    "letter-case": "capital and small letters differ",
    "extension": "the file has another extension",
}
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_DRIVE = re.compile(r"[A-Za-z]:/")
_LONGEST_END = 12  # folders of a path on another computer that are looked for here


class Listings:
    """The file names of folders, read once."""

    def __init__(self) -> None:
        self._folders: dict[Path, tuple[dict[str, list[str]], dict[str, list[str]]]] = {}

    def match(self, folder: Path, name: str, last: bool) -> tuple[str, str | None] | None:
        """Return the only entry of a folder that a name can mean, and the rule by which; None if there is none.

        Args:
            folder: The folder.
            name: Name of an entry.
            last: Whether it is an image file, whose extension may differ.
        """
        names, stems = self._listed(folder)
        same = names.get(_key(name), ())
        if name in same:
            return name, None
        alike = [each for each in same if unicodedata.normalize("NFC", each) == unicodedata.normalize("NFC", name)]
        if len(alike) == 1:
            return alike[0], "unicode"
        if len(same) == 1:
            return same[0], "letter-case"
        if not last or same:
            return None
        stem, suffix = os.path.splitext(name)  # noqa: PTH122  (a name, not a path)
        found = stems.get(_key(stem if suffix.lower() in PICTURE_SUFFIXES else name), ())
        return (found[0], "extension") if len(found) == 1 else None

    def _listed(self, folder: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        if folder not in self._folders:
            names: dict[str, list[str]] = {}
            stems: dict[str, list[str]] = {}
            for name in _entries(folder):
                names.setdefault(_key(name), []).append(name)
                stem, suffix = os.path.splitext(name)  # noqa: PTH122
                if suffix.lower() in PICTURE_SUFFIXES:
                    stems.setdefault(_key(stem), []).append(name)
            self._folders[folder] = names, stems
        return self._folders[folder]


class PictureFolder:
    """The folder with the images of an annotation file.

    Args:
        annotations: The annotation file.
        images: The folder, if known; otherwise the folders that annotation tools use are searched.
        names: The file names in the annotations.
        root: File names must not lead out of this folder; by default, the folder with the images. Links are followed.
        by_name: Whether an image may be in another folder than its name says.
        listings: Folders that were listed before.

    Raises:
        DatasetNotFoundError: `images` is given and is not a folder.
    """

    def __init__(
        self,
        annotations: Path,
        images: Path | None,
        names: Sequence[str],
        root: Path | None = None,
        *,
        by_name: bool = False,
        listings: Listings | None = None,
    ) -> None:
        if images is not None and not images.is_dir():
            raise DatasetNotFoundError(
                f"{images} is not a folder; expected the folder with the images of {annotations}"
            )
        places = [images] if images is not None else _usual_folders(annotations)
        self.places = [place for place in dict.fromkeys(places) if place.is_dir()]
        self._annotations, self._names, self._root, self._by_name = annotations, names, root, by_name
        self._listings = listings or Listings()
        self._claimed: dict[Path, set[str]] = {}

    @cached_property
    def best(self) -> Path:
        """The folder that has the most of the images; the first one if several have as many."""
        if len(self.places) == 1:
            return self.places[0]
        counts = {place: sum(self._exact(place, name) is not None for name in self._names) for place in self.places}
        if not any(counts.values()):
            counts = {place: sum(self._find(place, name) is not None for name in self._names) for place in self.places}
        return max(self.places, key=counts.__getitem__)

    def find(self, name: str) -> Path | None:
        """Return the path of an image, or None if it does not exist."""
        found = self._find(self.best, name)
        return None if found is None else found[0]

    def require(self, name: str, notes: Row) -> Path:
        """Return the path of an image, and note the rules by which it was found.

        Raises:
            RowError: It does not exist.
        """
        found = self._find(self.best, name)
        if found is None:
            raise RowError("missing-file", f"there is no image {shown(name)} in {self.best}{self._elsewhere(name)}")
        path, rules = found
        for rule in rules:
            notes.converted(f"name-{rule}", f"{shown(name)} is {shown(path.name)}: {_RULES[rule]}")
        return path

    def note_if_none_found(self, findings: Findings) -> bool:
        """Return whether no image exists, after noting it as an error."""
        if not self._names or any(self._find(self.best, name) for name in self._names):
            return False
        places = ", ".join(map(str, self.places))
        hint = self._elsewhere(self._names[0])
        message = (
            f"none of its {len(self._names)} images is in {places}, first {shown(self._names[0])}{hint}; give their "
            f"folder with images= (--images)"
        )
        findings.add("error", NO_PICTURES, str(self._annotations), message)
        return True

    def _elsewhere(self, name: str) -> str:
        base = _base(name)
        if self._by_name or base in ("", name) or self._exact(self.best, base) is None:
            return ""
        return f"; by_name=True (--by-name) would take {shown(base)} there, whatever its folder"

    def _find(self, folder: Path, name: str) -> tuple[Path, tuple[str, ...]] | None:
        """Return the path of an image in a folder, and the rules by which it was found."""
        exact = self._exact(folder, name)
        if exact is not None:
            return exact, ()
        candidates = list(self._candidates(folder, name))
        for text, rules in candidates:
            path = self._exact(folder, text)
            if path is not None and not (rules and self._is_claimed(folder, path)):
                return path, rules
        for text, rules in candidates:
            near = self._near(folder, text)
            if near is not None and not self._is_claimed(folder, near[0]):
                return near[0], (*rules, *near[1])
        return None

    def _exact(self, folder: Path, name: str) -> Path | None:
        path = folder / name if ".." not in name else Path(os.path.normpath(folder / name))
        try:
            return path if name and _is_inside(name, folder, self._root) and path.is_file() else None
        except (OSError, ValueError):  # the name is too long or contains NUL
            return None

    def _near(self, folder: Path, name: str) -> tuple[Path, tuple[str, ...]] | None:
        """Look a name up part by part in the listings of folders."""
        root = Path(os.path.normpath((self._root or folder).absolute()))
        try:
            target = Path(os.path.normpath(folder.absolute() / name))
        except ValueError:
            return None
        if not name or not target.is_relative_to(root) or target == root:
            return None
        here, used = root, []
        parts = target.relative_to(root).parts
        for index, part in enumerate(parts):
            found = self._listings.match(here, part, index == len(parts) - 1)
            if found is None:
                return None
            here /= found[0]
            used += [found[1]] if found[1] else []
        return (here, tuple(dict.fromkeys(used))) if here.is_file() else None

    def _is_claimed(self, folder: Path, path: Path) -> bool:
        """Return whether another row names this very file."""
        if self._by_name:
            return False
        if folder not in self._claimed:
            found = (self._exact(folder, name) for name in self._names)
            self._claimed[folder] = {os.path.normpath(each.absolute()) for each in found if each is not None}
        return os.path.normpath(path.absolute()) in self._claimed[folder]

    @cached_property
    def _bases(self) -> Counter[str]:
        """How many different names of the annotations end with each file name."""
        return Counter(map(_base, set(self._names)))

    def _candidates(self, folder: Path, name: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield what a name can mean, relative to the folder of the images, with the rules used."""
        for text, rules in _spellings(name):
            yield text, rules
            parts = [part for part in text.split("/") if part not in ("", ".")]
            for count in range(len(parts) - 1, 0, -1):
                if folder.absolute().parts[-count:] == tuple(parts[:count]):
                    yield "/".join(parts[count:]), (*rules, "own-folder")
            if text.startswith("/") or _DRIVE.match(text) or "url" in rules:
                for start in range(max(0, len(parts) - _LONGEST_END), len(parts)):
                    if start < len(parts) - 1 or self._bases[_base(name)] <= 1:
                        yield "/".join(parts[start:]), (*rules, "path")
            if self._by_name and parts:
                yield parts[-1], (*rules, "by-name")


def _spellings(name: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield what a name can mean as a path with slashes, with the rules used: as it is, or decoded."""
    path = name.replace("\\", "/")
    rules: tuple[str, ...] = ("backslashes",) if path != name else ()
    query = ""
    if _URL.match(path):
        path, query = _split(path)
        rules = (*rules, "url")
    elif "?" in path:
        path, _, query = path.partition("?")
        rules = (*rules, "query")
    if query:  # some tools serve a file by its path in the query
        yield from ((value, rules) for value in _parsed(query).get("d", ()))
    yield path, rules
    decoded = unquote(path)
    if decoded != path:
        yield decoded, (*rules, "percent")


def _split(url: str) -> tuple[str, str]:
    try:
        found = urlsplit(url)
    except ValueError:  # such as an odd number of brackets
        return url, ""
    return found.path, found.query


def _parsed(query: str) -> dict[str, list[str]]:
    try:
        return parse_qs(query)
    except ValueError:  # more fields than Python reads
        return {}


def _base(name: str) -> str:
    """Return the file name that a path or URL ends with."""
    path = name.replace("\\", "/")
    return (_split(path)[0] if _URL.match(path) else path).rsplit("/", 1)[-1]


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _entries(folder: Path) -> list[str]:
    try:
        return sorted(each.name for each in folder.iterdir())
    except OSError:
        return []


def _is_inside(name: str, folder: Path, root: Path | None) -> bool:
    if not os.path.isabs(name) and ".." not in name:  # noqa: PTH117  (pathlib is too slow for half a million names)
        return True
    found = os.path.normpath(folder.absolute() / name)
    return Path(found).is_relative_to(os.path.normpath((root or folder).absolute()))


def _usual_folders(annotations: Path) -> list[Path]:
    here = annotations.resolve().parent
    stem = annotations.stem
    split = stem.rsplit("_", 1)[-1]  # instances_train2017.json
    return [
        here / stem,
        here / "images",
        here,
        here.parent / split,
        here.parent / "images" / split,
        here.parent / "images" / stem,
        here.parent / stem,
        here.parent / "images",
        here.parent,
    ]
