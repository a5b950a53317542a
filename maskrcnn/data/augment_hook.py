"""Augmentation by a callable of the user, checked at every call."""

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maskrcnn.data.mask_crops import EMPTY, boxes_of
from maskrcnn.data.records import Image
from maskrcnn.errors import ArgumentError, TrainingError
from runtime.masks.paste import MaskCrop, crop_of, place_crops
from runtime.one_line import one_line
from runtime.pictures.read import MAX_PIXELS

ClassIds = npt.NDArray[np.int32]
Changed = tuple[Image, list[MaskCrop], ClassIds]

_TAKES = "it takes (image, boxes, masks) or (image, boxes, masks, class_ids), and rng by name if it draws numbers"
_GIVEN = {3: "image, boxes, masks", 4: "image, boxes, masks, class_ids"}


class AugmentHook:
    """A callable that changes an image and its objects in training.

    Args:
        function: Takes (image, boxes, masks) or (image, boxes, masks, class_ids), and returns as many values.
        name: Identifies it in messages and in the state of a run; by default, its module and name.

    Raises:
        ArgumentError: It cannot be called in this way.
    """

    def __init__(self, function: Callable[..., Any], name: str | None = None) -> None:
        self.name = _name_of(function) if name is None else name
        if not callable(function):
            raise ArgumentError(f"the augmentation {self.name} is no function: {_TAKES}")
        self._function = function
        self._count, self._random = _signature(function, self.name)

    def __call__(
        self,
        image: Image,
        crops: Sequence[MaskCrop],
        class_ids: ClassIds,
        rng: np.random.Generator,
        *,
        classes: int,
        where: str,
    ) -> Changed:
        """Return the changed image, uint8 [h, w, C], its masks and their class ids.

        The callable gets copies and, as `rng`, a generator of its own. The masks of objects that vanished are `EMPTY`.

        Args:
            image: uint8 [H, W, C].
            crops: N tight crops, or `EMPTY`.
            class_ids: int32 [N], negative for a crowd.
            rng: Not changed.
            classes: Number of classes, with the background.
            where: Names the image in messages.

        Raises:
            TrainingError: The callable raised an error, or returned something else than it should.
        """
        where = f"{where}: the augmentation {self.name}"
        masks = place_crops(crops, (image.shape[0], image.shape[1]))
        boxes = boxes_of(list(crops))[:, [1, 0, 3, 2]].astype(np.float32)
        given = (image.copy(), boxes, masks, class_ids.copy())[: self._count]
        try:
            found = self._function(*given, **({"rng": rng.spawn(1)[0]} if self._random else {}))
        except Exception as error:
            raise TrainingError(f"{where} raised {type(error).__name__}: {one_line(str(error))}") from error
        if not isinstance(found, tuple | list) or len(found) != self._count:
            raise TrainingError(f"{where} returned {_kind(found)}; expected {_GIVEN[self._count]}")
        changed = _checked_image(found[0], image.shape[2], where)
        parts = _checked_masks(found[2], changed.shape[:2], where)
        ids = _checked_ids(found[3], classes, where) if len(found) > 3 else class_ids
        if len(ids) != len(parts):
            raise TrainingError(
                f"{where} returned {len(parts)} masks for {len(ids)} objects; to remove or add objects, take class_ids "
                "as the fourth argument and return theirs, or return masks without a pixel"
            )
        _check_boxes(found[1], parts, changed.shape[:2], where)
        return changed, parts, ids


def find_hook(text: str) -> AugmentHook:
    """Import the callable that a command line names: FILE.py:NAME or MODULE:NAME.

    Modules are also looked for in the current folder, and what a file imports in its own folder.

    Raises:
        ArgumentError: There is no such callable, or importing it failed.
    """
    source, _, attribute = text.rpartition(":")
    if not source or not attribute.isidentifier():
        raise ArgumentError(f"the augmentation is {text!r}; expected FILE.py:NAME or MODULE:NAME")
    is_file = source.endswith(".py")
    if is_file and not Path(source).is_file():
        raise ArgumentError(f"the augmentation is {text!r}, but there is no file {source}")
    folder = str(Path(source).resolve().parent if is_file else Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = _from_file(Path(source)) if is_file else importlib.import_module(source)
    except (Exception, SystemExit) as error:
        raise ArgumentError(
            f"the augmentation {text} cannot be imported: {type(error).__name__}: {one_line(str(error))}"
        ) from error
    if not hasattr(module, attribute):
        raise ArgumentError(f"the augmentation is {text!r}, but {source} has no {attribute}")
    file = getattr(module, "__file__", None)  # None for a package without a file, or of what is built in
    content = Path(file).read_bytes() if file else b""
    name = f"{Path(source).stem if is_file else source}:{attribute}"
    return AugmentHook(getattr(module, attribute), f"{name} (SHA-256 {hashlib.sha256(content).hexdigest()[:12]})")


def _from_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"augmentation_{path.stem}", path)
    if spec is None or spec.loader is None:  # only without a loader of Python files
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # as dataclasses and pickle need it
    spec.loader.exec_module(module)
    return module


def _name_of(function: object) -> str:
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}:{named.__qualname__}"


def _signature(function: Callable[..., Any], name: str) -> tuple[int, bool]:
    """Return how many of the four values a callable takes, and whether it takes `rng`."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # of some that are written in C
        return 3, False
    kinds = inspect.Parameter
    several = any(each.kind == kinds.VAR_POSITIONAL for each in parameters)
    random = any(each.name == "rng" for each in parameters)
    named = [each for each in parameters if each.name != "rng"]
    places = [each for each in named if each.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    needed = [each for each in places if each.default is kinds.empty]
    other = [each.name for each in named if each.kind == kinds.KEYWORD_ONLY and each.default is kinds.empty]
    if other or len(needed) > 4 or (len(places) < 3 and not several):
        shown = ", ".join(str(each) for each in parameters)
        raise ArgumentError(f"the augmentation {name} has the parameters ({shown}); {_TAKES}")
    fourth = len(places) > 3 and (places[3].default is kinds.empty or places[3].name == "class_ids")
    return (4 if fourth or (several and len(places) < 4) else 3), random


def _checked_image(image: Any, channels: int, where: str) -> Image:
    sound = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (2, 3) and image.size
    if sound and image.ndim == 2:
        image = image[:, :, None]
    if not sound or image.shape[2] != channels:
        raise TrainingError(f"{where} returned the image {_kind(image)}; expected uint8 [H, W, {channels}]")
    if image.shape[0] * image.shape[1] > MAX_PIXELS:
        raise TrainingError(f"{where} returned the image {_kind(image)}; expected at most {MAX_PIXELS} pixels")
    return np.ascontiguousarray(image)


def _checked_masks(masks: Any, size: tuple[int, ...], where: str) -> list[MaskCrop]:
    expected = f"expected [N, {size[0]}, {size[1]}], bool or whole numbers with 0 as background"
    if not isinstance(masks, np.ndarray | list | tuple):
        raise TrainingError(f"{where} returned the masks {_kind(masks)}; {expected}")
    if isinstance(masks, np.ndarray) and (masks.ndim != 3 and masks.size):
        raise TrainingError(f"{where} returned the masks {_kind(masks)}; {expected}")
    if isinstance(masks, np.ndarray) and not masks.size:
        return [EMPTY] * len(masks)
    crops = []
    for number, mask in enumerate(masks):
        if not isinstance(mask, np.ndarray) or mask.shape != size or mask.dtype.kind not in "biu":
            raise TrainingError(f"{where} returned for object {number} the mask {_kind(mask)}; {expected}")
        crop = crop_of(mask != 0)
        crops.append(crop if crop[0].size else EMPTY)
    return crops


def _checked_ids(ids: Any, classes: int, where: str) -> ClassIds:
    found = np.asarray(ids) if len(np.shape(ids)) == 1 else None
    if found is None or (found.size and (found.dtype.kind not in "iuf" or not np.all(found == np.trunc(found)))):
        raise TrainingError(f"{where} returned the class ids {_kind(ids)}; expected whole numbers [N]")
    wrong = [value for value in found.tolist() if not 1 <= abs(value) < classes]
    if wrong:
        raise TrainingError(
            f"{where} returned class id {wrong[0]:g}; expected 1 to {classes - 1}, negative for a crowd"
        )
    return found.astype(np.int32)


def _check_boxes(boxes: Any, crops: Sequence[MaskCrop], size: tuple[int, ...], where: str) -> None:
    """Check the boxes, unless they are None; training takes those of the masks, so they only show mistakes."""
    if boxes is None:
        return
    expected = "expected x1, y1, x2, y2 in image pixels for each object, or None for the boxes of the masks"
    try:
        found = np.asarray(boxes, np.float64)
    except (TypeError, ValueError) as error:
        raise TrainingError(f"{where} returned the boxes {_kind(boxes)}; {expected}") from error
    found = found if found.size else found.reshape(0, 4)
    if found.shape != (len(crops), 4) or not np.isfinite(found).all():
        wrong = "with values that are not finite" if found.shape == (len(crops), 4) else f"for {len(crops)} masks"
        raise TrainingError(f"{where} returned the boxes {_kind(found)} {wrong}; {expected}")
    for number, (box, (pixels, (y, x))) in enumerate(zip(found.tolist(), crops, strict=True)):
        if not pixels.size:
            continue
        own = (x, y, x + pixels.shape[1], y + pixels.shape[0])
        shown = ", ".join(f"{value:g}" for value in box)
        if box[0] > box[2] or box[1] > box[3] or min(box) < -1 or box[2] > size[1] + 1 or box[3] > size[0] + 1:
            raise TrainingError(
                f"{where} returned the box {shown} for object {number} of an image of {size[1]} x {size[0]} pixels; "
                f"{expected}"
            )
        if box[0] > own[2] or box[2] < own[0] or box[1] > own[3] or box[3] < own[1]:
            raise TrainingError(
                f"{where} returned the box {shown} for object {number}, whose mask lies elsewhere, in "
                f"{', '.join(map(str, own))}; {expected}"
            )


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return f"a {type(value).__name__} of {len(value)}" if isinstance(value, tuple | list) else type(value).__name__
