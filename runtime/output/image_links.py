"""Images beside their annotations without copies: names in one folder, and links."""

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_ANNOTATIONS = (".json", ".txt")  # suffixes of files beside the images
_LONGEST = 180  # bytes of a name; file systems allow 255, and a temporary name is longer


def flat_names(names: Sequence[str]) -> list[str]:
    """Return names for files in one folder, whose stems differ also where capital letters do not count.

    Folders become a part of the name: `plate/a.jpg` is `plate__a.jpg`. What would have the stem of another file, is too
    long, or has a suffix of annotations, gets a mark that depends on its name alone; the last is then called .png.

    Args:
        names: Of image files, each once, with slashes between folders.
    """
    flat = [name.replace("/", "__") for name in names]
    stems = Counter(_stem(name) for name in flat)
    return [
        _marked(each, name) if stems[_stem(each)] > 1 or len(_bytes(each)) > _LONGEST or _is_text(each) else each
        for each, name in zip(flat, names, strict=True)
    ]


def _is_text(name: str) -> bool:
    return name.lower().endswith(_ANNOTATIONS)


def _stem(name: str) -> str:
    return os.path.splitext(name)[0].casefold()  # noqa: PTH122  (a name, not a path)


def _marked(flat: str, name: str) -> str:
    stem, suffix = os.path.splitext(flat)  # noqa: PTH122
    short = _bytes(stem)[:_LONGEST].decode("utf-8", "ignore")
    mark = hashlib.sha256(_bytes(name)).hexdigest()[:8]
    return f"{short}~{mark}{'.png' if _is_text(flat) else suffix}"


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")  # whatever the locale


def link_image(image: Path, link: Path, place: Path | None = None) -> None:
    """Make a relative symbolic link to the file that an image is, and replace what is there.

    Where the system has no such links, the image is linked as the same file, or else copied.

    Args:
        image: The image; links are followed.
        link: The link to make; its folder exists.
        place: Where it will be moved to before it is used; by default it stays.
    """
    real = os.path.realpath(image)
    with suppress(FileNotFoundError):
        link.unlink()
    try:
        link.symlink_to(os.path.relpath(real, os.path.realpath((place or link).parent)))
    except (OSError, ValueError):  # no right to make links; another drive on Windows
        try:
            os.link(real, link)
        except OSError:
            shutil.copyfile(real, link)
