"""Labels of objects: what is written, in which font, and where, so that no label covers another."""

import logging
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from math import ceil, sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

RGB = tuple[int, int, int]
# x1, y1, x2, y2 in whole image pixels; x2, y2 exclusive
Rectangle = tuple[int, int, int, int]
Size = tuple[int, int]  # width, height

_logger = logging.getLogger(__name__)

# Longest name, in characters; in images too narrow for it, the first length that fits.
_NAME_LENGTHS = (28, 20, 14, 10, 7, 5, 3, 1)
_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"

# A label that would hide a larger part of any object is not written.
_HIDDEN_SHARE = 0.3

# Pairs of a place and a box that are compared at a time.
_MOST_PAIRS = 1 << 18

# Pillow's own font has ASCII and little else. The first of these that is installed and has all letters of a name is
# used for it: those of Linux, Windows and macOS, for most scripts and for Chinese, Japanese and Korean.
_SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "Arial.ttf",
    "NotoSansCJK-Regular.ttc",
    "DroidSansFallbackFull.ttf",
    "wqy-zenhei.ttc",
    "msyh.ttc",
    "malgun.ttf",
    "Arial Unicode.ttf",
)


class LabeledObject(NamedTuple):
    """The label of one object."""

    box: Sequence[int]  # of the object: x1, y1, x2, y2 in whole image pixels
    name: str  # first part of the label, shortened if it is long
    tail: str  # second part, such as a score; left out where there is no room for it
    color: RGB


class _Word(NamedTuple):
    letters: Image.Image  # coverage 0..255; its left side is `reach` pixels before the word begins
    reach: int
    width: int
    above: int  # from the baseline to the top
    below: int


def write_labels(canvas: Image.Image, objects: Sequence[LabeledObject]) -> list[Rectangle | None]:
    """Write the labels of objects next to their boxes, on tags of the objects' colors.

    Large objects are labeled first. No label covers another or leaves the image, and one that would hide more than 30 %
    of an object is shortened to the name or left out.

    Returns:
        The rectangle of each object's tag; None if it has none.
    """
    size = letter_size(canvas.size)
    texts = [_texts(each, size, canvas.width) for each in objects]
    sizes = [[_tag_size(words, size) for words in some] for some in texts]
    places = place_tags(np.array([each.box for each in objects], np.int64).reshape(-1, 4), sizes, canvas.size)
    across, down = _padding(size)
    for each, some, place in zip(objects, texts, places, strict=True):
        if place is not None:
            variant, tag = place
            canvas.paste(each.color, tag)
            x, base = tag[0] + across, tag[1] + down + max(word.above for word in some[variant])
            for word in some[variant]:
                canvas.paste(ink(each.color), (x - word.reach, base - word.above), word.letters)
                x += word.width
    return [place and place[1] for place in places]


def letter_size(image_size: Size) -> int:
    """Return the size of letters, in pixels, for an image of (width, height) or (height, width)."""
    return max(11, round(sqrt(image_size[0] * image_size[1]) / 60))


def ink(color: RGB) -> RGB:
    """Return black or white, whichever has the higher contrast on `color`; it is at least 4.5 : 1 (WCAG)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in color)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # WCAG contrast is (light + 0.05) / (dark + 0.05); black and white are equal at sqrt(1.05 * 0.05) - 0.05.
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)


def place_tags(
    boxes: npt.NDArray[np.int64], sizes: Sequence[Sequence[Size]], image_size: Size
) -> list[tuple[int, Rectangle] | None]:
    """Place tags next to boxes, inside the image, without covering each other or much of any object.

    Args:
        boxes: int64 [N, 4], x1, y1, x2, y2 in image pixels.
        sizes: per box the possible sizes of its tag, the best first; none for no tag.
        image_size: (width, height).

    Returns:
        Per box the index of the size and the rectangle; None if there is no place.
    """
    placed: list[tuple[int, Rectangle] | None] = [None] * len(boxes)
    rows = [row for row, some in enumerate(sizes) for _ in some]
    if not rows:
        return placed
    boxes = np.clip(boxes, 0, image_size * 2)
    areas = np.maximum((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), 0)
    places, inside = _candidates(boxes[rows], np.array([size for some in sizes for size in some]), image_size)
    worst, total = _hidden_shares(places, boxes, areas)
    # Coarse steps: a box that moves by a pixel from frame to frame keeps its tag where it is.
    costs = np.where(inside & (worst <= _HIDDEN_SHARE), np.rint(4 * total), np.inf)
    firsts = np.cumsum([0, *(len(some) for some in sizes)]).tolist()
    for row in np.argsort(-areas, kind="stable").tolist():
        for pair in range(firsts[row], firsts[row + 1]):
            best = int(np.argmin(costs[pair]))
            if costs[pair, best] < np.inf:
                left, top, right, bottom = places[:, pair, best].tolist()
                placed[row] = pair - firsts[row], (left, top, right, bottom)
                # A pixel apart, so that two tags never look like one.
                beside = (places[0] > right) | (places[1] > bottom) | (places[2] < left) | (places[3] < top)
                costs[~beside] = np.inf
                break
    return placed


def _candidates(
    boxes: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64], image_size: Size
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return the places of tags [P, 2] at boxes [P, 4]: sides [4, P, C], the best first, and which are in the image."""
    (x1, y1, x2, y2), (wide, high), (width, height) = boxes.T, sizes.T, image_size
    # Along the edges of the image tags move inward, but not away from their box.
    across = [np.clip(x, 0, np.maximum(width - wide, 0)) for x in (x1, x2 - wide, (x1 + x2 - wide) // 2)]
    along = [np.clip(y, 0, np.maximum(height - high, 0)) for y in (y1, y2 - high, (y1 + y2 - high) // 2)]
    corners = [(x, y) for y in (y1 - high, y2) for x in across]  # above, below
    corners += [(x, y) for y in along[:2] for x in across[:2]]  # inside
    corners += [(x, y) for x in (x2, x1 - wide) for y in along]  # beside
    left, top = np.array(corners).transpose(1, 2, 0)
    places = np.stack([left, top, left + wide[:, None], top + high[:, None]])
    return places, (left >= 0) & (top >= 0) & (places[2] <= width) & (places[3] <= height)


def _hidden_shares(
    places: npt.NDArray[np.int64], boxes: npt.NDArray[np.int64], areas: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return which share of one box each place hides at most, and the sum of the shares of all boxes: [P, C] each."""
    count, choices = places.shape[1:]
    worst, total = np.empty((count, choices), np.float32), np.empty((count, choices), np.float32)
    sides, weights = boxes.T.astype(np.float32), (1 / np.maximum(areas, 1)).astype(np.float32)
    step = max(1, _MOST_PAIRS // (choices * len(boxes)))
    for some in (slice(begin, begin + step) for begin in range(0, count, step)):
        left, top, right, bottom = places[:, some, :, None].astype(np.float32)
        share = np.maximum(np.minimum(right, sides[2]) - np.maximum(left, sides[0]), 0)
        share *= np.maximum(np.minimum(bottom, sides[3]) - np.maximum(top, sides[1]), 0)
        share *= weights
        worst[some], total[some] = share.max(axis=2), share.sum(axis=2)
    return worst, total


def _padding(size: int) -> tuple[int, int]:
    return max(2, round(size / 4)), max(1, round(size / 7))


def _tag_size(words: Sequence[_Word], size: int) -> Size:
    across, down = _padding(size)
    tall = max(word.above for word in words) + max(word.below for word in words)
    return sum(word.width for word in words) + 2 * across, tall + 2 * down


def _texts(each: LabeledObject, size: int, width: int) -> list[list[_Word]]:
    """Return the label with its tail, then without; none if the image is too narrow for it."""
    whole, _ = written(each.name)  # shortened after that, so that missing letters are reported once
    for most in _NAME_LENGTHS:
        name = whole if len(whole) <= most else whole[: most - 1].rstrip() + _ELLIPSIS
        words = [_word(part, size) for part in (name, each.tail if name else each.tail.strip()) if part]
        if words and _tag_size(words, size)[0] <= width:
            return [words[:count] for count in range(len(words), 0, -1)]
    return []


@lru_cache(maxsize=512)
def _word(text: str, size: int) -> _Word:
    shown, path = written(text)
    font = _font(path, size)
    left, top, right, bottom = font.getbbox(shown, anchor="ls")
    _, plain_top, _, plain_bottom = font.getbbox("Hg", anchor="ls")
    above, below = ceil(-min(top, plain_top)), ceil(max(bottom, plain_bottom))
    reach, width = ceil(max(0, -left)), ceil(font.getlength(shown))
    letters = Image.new("L", (reach + max(1, ceil(right), width), above + below))
    ImageDraw.Draw(letters).text((reach, above), shown, 255, font, anchor="ls")
    return _Word(letters, reach, width, above, below)


@lru_cache(maxsize=64)
def _font(path: str | None, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)


def readable_name(name: str, class_id: int) -> str:
    """Return the name of a class, or its id if no installed font has any of its letters."""
    shown, _ = written(name)
    return name if shown == name or any(sign.isalnum() for sign in shown) else f"class {class_id}"


@lru_cache(maxsize=1024)
def written(text: str) -> tuple[str, str | None]:
    """Return a text as it can be written, and the path of the font that has its letters; None for Pillow's own font.

    If no font has them, letters lose their accents, and others become "?".
    """
    text = "".join(sign if sign.isprintable() else " " if sign.isspace() else "?" for sign in text)
    if text.replace(_ELLIPSIS, "").isascii():
        return text, None
    for path in _installed_fonts():
        if not any(_is_missing(sign, path) for sign in set(text)):
            return text, path
    plain = "".join(sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign))
    plain = "".join(sign if sign.isascii() or sign == _ELLIPSIS else "?" for sign in plain)
    _logger.warning(
        "no installed font has all letters of %r; images show %r (any of these fonts may help: %s)",
        text,
        plain,
        ", ".join(_SYSTEM_FONTS),
    )
    return plain, None


@lru_cache(maxsize=1)
def _installed_fonts() -> tuple[str, ...]:
    found = []
    for name in _SYSTEM_FONTS:
        try:
            found.append(str(ImageFont.truetype(name, 20).path))
        except OSError:  # not installed
            continue
    return tuple(found)


@lru_cache(maxsize=4096)
def _is_missing(sign: str, path: str) -> bool:
    font = _font(path, 20)
    masks = [font.getmask(each) for each in (sign, "\uffff")]  # U+FFFF is no character: fonts show an empty box
    return masks[0].size == masks[1].size and bytes(masks[0]) == bytes(masks[1])
