"""Records from a dataset written in Python; images and masks are loaded when needed."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from maskrcnn.data.records import Dataset, Instance, Record
from maskrcnn.errors import DatasetError
from runtime.masks.paste import crop_of
from runtime.masks.rle import encode_crop


class PythonSource(Protocol):
    """A dataset written in Python; subclasses of matterport's `Dataset` satisfy this after `prepare`."""

    @property
    def class_names(self) -> Sequence[str]:
        """Names by class id, "BG" first."""

    @property
    def image_ids(self) -> Any:
        """Ids that `load_image` and `load_mask` accept, one per image."""

    def load_image(self, image_id: Any) -> Any:
        """Return the image, uint8 [H, W, 3]."""

    def load_mask(self, image_id: Any) -> Any:
        """Return masks, bool [H, W, N], and class ids, int [N], negative for crowds."""


def from_python(dataset: PythonSource, name: str | None = None) -> Dataset:
    """Convert an object that provides images, masks and class ids to a dataset.

    If the object has matterport's `image_info` and `source_class_ids`, only the classes of an image's source are active
    in that image, and messages use the source's own image ids.

    Args:
        dataset: Has `class_names`, `image_ids`, `load_image` and `load_mask` as described in `PythonSource`. Training
            calls its methods from several threads.
        name: Used in messages; by default the name of its class.

    Returns:
        A dataset that loads images and masks when they are needed.

    Raises:
        DatasetError: One of the four attributes is missing, there are no images, or the first class is not "BG".
            Loading a record also raises it, naming the image, for any error in the methods of `dataset`.
    """
    name = name or type(dataset).__name__
    for needed in ("class_names", "image_ids", "load_image", "load_mask"):
        if not hasattr(dataset, needed):
            hint = "; was prepare() called?" if hasattr(dataset, "prepare") else ""
            raise DatasetError(f"{name} has no {needed}; expected class_names, image_ids, load_image, load_mask{hint}")
    class_names = tuple(str(value) for value in dataset.class_names)
    if class_names[:1] != ("BG",) or len(class_names) < 2:
        raise DatasetError(f"{name} has the class names {class_names}; expected 'BG', then at least one")
    image_ids = list(dataset.image_ids)
    if not image_ids:
        raise DatasetError(f"{name} has no images")
    labels = [_label(dataset, image_id) for image_id in image_ids]
    if len(set(labels)) != len(labels):
        labels = [_plain(image_id) for image_id in image_ids]
    records = tuple(
        _record(dataset, image_id, label, f"{name} image {label!r}", len(class_names))
        for image_id, label in zip(image_ids, labels, strict=True)
    )
    if len(set(labels)) != len(labels):
        raise DatasetError(f"{name} has duplicate image ids")
    return Dataset(name, class_names, records)


def _record(dataset: PythonSource, image_id: Any, label: int | str, where: str, classes: int) -> Record:
    def load_image() -> npt.NDArray[np.uint8]:
        image = _call(dataset.load_image, image_id, f"{where}: load_image")
        deep = isinstance(image, np.ndarray) and image.dtype == np.uint16  # for which `pixels.value_range` is
        sound = deep or (isinstance(image, np.ndarray) and image.dtype == np.uint8)
        if not sound or image.ndim not in (2, 3) or not image.size:
            raise DatasetError(f"{where}: load_image returned {_kind(image)}; expected uint8 [H, W, 3]")
        return image

    def load_instances() -> tuple[Instance, ...]:
        found = _call(dataset.load_mask, image_id, f"{where}: load_mask")
        return _instances(found, classes, f"{where}: load_mask")

    file = getattr(dataset, "image_file", lambda _: None)(image_id)
    return Record(label, load_image if file is None else file, load_instances, _active(dataset, image_id))


def _call(function: Any, image_id: Any, where: str) -> Any:
    try:
        return function(image_id)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise DatasetError(f"{where} raised {type(error).__name__}: {reason}") from error


def _instances(found: Any, classes: int, where: str) -> tuple[Instance, ...]:
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise DatasetError(f"{where} returned {_kind(found)}; expected masks [H, W, N] and class ids [N]")
    masks, ids = np.asarray(found[0]), np.asarray(found[1])
    if ids.size == 0 and masks.size == 0:
        return ()
    if masks.ndim != 3 or ids.ndim != 1 or masks.shape[2] != len(ids) or masks.dtype.kind not in "biuf":
        raise DatasetError(f"{where} returned {_kind(masks)} and {_kind(ids)}; expected bool [H, W, N] and int [N]")
    # Old code returns ids as floats, which must be whole numbers.
    if ids.dtype.kind not in "iuf" or not np.all(ids == np.trunc(ids)):
        raise DatasetError(f"{where} returned class ids of {_kind(ids)}; expected whole numbers")
    wrong = [value for value in ids.tolist() if not 1 <= abs(value) < classes]
    if wrong:
        raise DatasetError(f"{where} returned class id {wrong[0]:g}; expected 1..{classes - 1}, negative for a crowd")
    height, width = masks.shape[:2]
    instances = []
    for index, class_id in enumerate(ids.tolist()):
        crop = crop_of(masks[:, :, index] != 0)
        if crop[0].size:  # empty masks are skipped, as in the original
            mask = encode_crop(*crop, (height, width))
            instances.append(Instance(int(abs(class_id)), mask, class_id < 0, None, index))
    return tuple(instances)


def _active(dataset: PythonSource, image_id: Any) -> frozenset[int] | None:
    by_source = getattr(dataset, "source_class_ids", None)
    info = _info(dataset, image_id)
    if not isinstance(by_source, dict) or info is None or info.get("source") not in by_source:
        return None
    return frozenset(int(class_id) for class_id in by_source[info["source"]] if class_id)


def _info(dataset: PythonSource, image_id: Any) -> dict[str, Any] | None:
    try:
        info = getattr(dataset, "image_info", ())[image_id]
    except (IndexError, KeyError, TypeError):
        return None
    return info if isinstance(info, dict) else None


def _label(dataset: PythonSource, image_id: Any) -> int | str:
    info = _info(dataset, image_id) or {}
    return _plain(info.get("id", image_id))


def _plain(value: Any) -> int | str:
    return int(value) if isinstance(value, int | np.integer) else str(value)


def _kind(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
