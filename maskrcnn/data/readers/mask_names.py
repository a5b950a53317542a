"""Which mask image belongs to which image: by the same name, or by one rule that fits all masks."""

import re
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path

from maskrcnn.data.readers.findings import Findings
from maskrcnn.data.readers.json_rows import shown

_WORD = re.compile(r"[A-Za-z]+")


def pair_masks(
    pictures: Mapping[str, Path], masks: Mapping[str, Path], folder: Path, findings: Findings
) -> list[tuple[Path, Path]]:
    """Return image and mask files, in the order of the masks; note masks without an image.

    If no mask has the name of an image, one addition to all names is looked for (`a.jpg`, `a_mask.png`), or one word in
    place of another (`img_1.jpg`, `mask_1.png`). It must be the only one that fits all masks.

    Args:
        pictures: Image files by stem.
        masks: Mask files by stem.
        folder: Folder of the masks, for messages.
        findings: Where to note.
    """
    names = {stem: stem for stem in masks if stem in pictures}
    if not names and masks and pictures:
        rules = list(_fitting(list(pictures), list(masks)))
        if len(rules) == 1:
            names = rules[0]
            first, picture = next(iter(names.items()))
            message = f"masks are named otherwise than images: {shown(first)} is the mask of {shown(picture)}"
            findings.add("info", "mask-name", folder.name, message)
    for stem, mask in masks.items():
        if stem not in names:
            message = (
                f"there is no image {shown(stem)} beside {folder.name}; expected the name of the image, or the same "
                f"addition to all names, such as NAME_mask"
            )
            findings.add("error", "missing-file", f"{folder.name}/{mask.name}", message)
    return [(pictures[names[stem]], mask) for stem, mask in masks.items() if stem in names]


def _fitting(pictures: list[str], masks: list[str]) -> Iterator[dict[str, str]]:
    """Yield the different assignments of images to masks by one rule."""
    found: list[dict[str, str]] = []
    for names in _candidates(pictures, masks):
        fits = len(names) == len(masks) and set(names.values()) <= set(pictures)
        if fits and len(set(names.values())) == len(masks) and names not in found:
            found.append(names)
            yield names


def _candidates(pictures: list[str], masks: list[str]) -> Iterator[dict[str, str]]:
    """Yield image by mask for each rule that gives the first mask an image."""
    first = masks[0]
    for picture in pictures:
        for place in re.finditer(re.escape(picture), first):
            before, after = first[: place.start()], first[place.end() :]
            yield {
                mask: mask[len(before) : len(mask) - len(after)]
                for mask in masks
                if mask.startswith(before) and mask.endswith(after)
            }
        begin, word, other, end = _difference(first, picture)
        if (begin or end) and _WORD.fullmatch(word) and _WORD.fullmatch(other):
            yield {mask: mask.replace(word, other, 1) for mask in masks}


def _difference(one: str, other: str) -> tuple[str, str, str, str]:
    """Return the common beginning of two texts, what follows in each, and their common end."""
    begin = _common(one, other)
    rest, other_rest = one[len(begin) :], other[len(begin) :]
    end = _common(rest[::-1], other_rest[::-1])[::-1]
    return begin, rest[: len(rest) - len(end)], other_rest[: len(other_rest) - len(end)], end


def _common(one: str, other: str) -> str:
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return "".join(letter for letter, _ in pairs)
