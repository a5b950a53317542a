"""Names of the classes of a PyTorch checkpoint, which its weights do not have."""

from collections.abc import Sequence
from pathlib import Path

from maskrcnn.configuration.samples import COCO_CLASS_NAMES
from maskrcnn.errors import ArgumentError
from runtime.json_file import read_file

BACKGROUND = "BG"
# torchvision numbers classes as COCO's annotation files do, which leave out these ids.
_COCO_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
_COCO_WITH_GAPS = len(COCO_CLASS_NAMES) - 1 + len(_COCO_GAPS)
_BACKGROUNDS = ("bg", "background", "__background__", "_background_")


def coco_names(classes: int) -> tuple[str, ...] | None:
    """Return COCO's class names for a model with that many classes, without the background; None: it has others.

    With 90, class ids are COCO's category ids, and the ids that COCO leaves out are called "N/A" with their number.
    """
    names = list(COCO_CLASS_NAMES[1:])
    if classes == _COCO_WITH_GAPS:
        for number in _COCO_GAPS:
            names.insert(number - 1, f"N/A {number}")
    return tuple(names) if classes == len(names) else None


def numbered_names(classes: int) -> tuple[str, ...]:
    """Return names for classes that nothing names."""
    return tuple(f"class {number}" for number in range(1, classes + 1))


def chosen_names(choice: str | Sequence[str], classes: int, source: str) -> tuple[str, ...]:
    """Return the class names that a user chose, without the background.

    Args:
        choice: "coco", a file with a name per line, names with commas between them, or the names.
        classes: Number of classes of the checkpoint, without the background.
        source: Name of the checkpoint, for messages.

    Raises:
        ArgumentError: There is no such file, or the number of names is another.
    """
    if choice == "coco":
        names = coco_names(classes)
        if names is None:
            raise ArgumentError(
                f"{source} has {classes} classes besides the background, and COCO has {len(COCO_CLASS_NAMES) - 1} "
                f"({_COCO_WITH_GAPS} with the ids that torchvision leaves unused): give the names with --classes"
            )
        return names
    names = tuple(choice) if not isinstance(choice, str) else _split(choice, classes)
    if len(names) != classes:
        surplus = len(names) == classes + 1 and names[0].lower() in _BACKGROUNDS
        hint = "leave out the background, which comes first" if surplus else "give one for each, in order of training"
        raise ArgumentError(
            f"{source} has {classes} classes besides the background, --classes has {len(names)}: {hint}"
        )
    empty = [number for number, name in enumerate(names, start=1) if not name]
    if empty:
        raise ArgumentError(f"--classes has no name for class {empty[0]}: give one for each, in order of training")
    return names


def _split(choice: str, classes: int) -> tuple[str, ...]:
    path = Path(choice)
    if path.is_file():
        return _read(path)
    names = tuple(name.strip() for name in choice.split(","))
    if len(names) == 1 and (classes > 1 or "/" in choice or path.suffix in (".txt", ".names", ".json", ".csv")):
        raise ArgumentError(
            f"there is no file {choice!r}: --classes takes coco, a file with a name per line, or names with commas"
        )
    return names


def _read(path: Path) -> tuple[str, ...]:
    try:
        text = read_file(path).decode("utf-8-sig")
    except (OSError, ValueError) as error:  # UnicodeDecodeError is a ValueError
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
        raise ArgumentError(f"cannot read the class names in {path}: {reason}") from error
    return tuple(line.strip() for line in text.rstrip().splitlines())
