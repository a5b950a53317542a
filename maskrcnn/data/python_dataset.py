"""Datasets that are Python: any object that yields pictures, masks and class ids.

The way of matterport's Mask_RCNN: a subclass adds classes and pictures, and says in `load_mask` where the masks are. An
old subclass works with `from maskrcnn.data.python_dataset import PythonDataset as Dataset`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from maskrcnn.errors import DatasetError
from runtime.pictures.read import read_image

_BACKGROUND: dict[str, Any] = {"source": "", "id": 0, "name": "BG"}


class PythonDataset:
    """Base of datasets written in Python.

    Call `add_class` and `add_image` for everything, override `load_mask` (and `load_image`, where the picture is no
    file), call `prepare`, and give it to `from_python`.

    Attributes:
        class_info: One dict per class: source, id, name; the first is the background.
        image_info: One dict per picture: source, id, path, and what else `add_image` was given.
        num_classes: With the background; this and the following are there after `prepare`.
        class_ids: int32 [num_classes], 0, 1, ...
        class_names: By class id; the text before a comma.
        num_images: How many.
        image_ids: int32 [num_images], 0, 1, ...: what `load_image` and `load_mask` take.
        class_from_source_map: Class id by "source.id".
        image_from_source_map: Image id by "source.id".
        sources: Those of the classes.
        source_class_ids: Class ids of each source, the background among them.
    """

    def __init__(self, class_map: object = None) -> None:
        del class_map  # never did anything, but old subclasses pass it on
        self.class_info: list[dict[str, Any]] = [dict(_BACKGROUND)]
        self.image_info: list[dict[str, Any]] = []
        self.source_class_ids: dict[str, list[int]] = {}

    def add_class(self, source: str, class_id: int, class_name: str) -> None:
        """Add a class, once; the same source and id again are passed over.

        Raises:
            DatasetError: The source's name has a dot.
        """
        if "." in source:
            raise DatasetError(f"the source is called {source!r}; expected a name without a dot")
        if not any(info["source"] == source and info["id"] == class_id for info in self.class_info):
            self.class_info.append({"source": source, "id": class_id, "name": class_name})

    def add_image(self, source: str, image_id: int | str, path: Any, **kwargs: Any) -> None:
        """Add a picture; what else is given stands in its `image_info`."""
        self.image_info.append({"id": image_id, "source": source, "path": path, **kwargs})

    def prepare(self, class_map: object = None) -> None:
        """Number classes and pictures, when all are added."""
        del class_map
        self.num_classes = len(self.class_info)
        self.class_ids = np.arange(self.num_classes, dtype=np.int32)
        self.class_names = [str(info["name"]).split(",")[0] for info in self.class_info]
        self.num_images = len(self.image_info)
        self.image_ids = np.arange(self.num_images, dtype=np.int32)
        self.class_from_source_map = _by_source(self.class_info)
        self.image_from_source_map = _by_source(self.image_info)
        self.sources = list(dict.fromkeys(info["source"] for info in self.class_info))
        self.source_class_ids = {
            source: [i for i, info in enumerate(self.class_info) if i == 0 or info["source"] == source]
            for source in self.sources
        }

    def map_source_class_id(self, source_class_id: str) -> int:
        """Class id of "source.id", as in "coco.12".

        Raises:
            DatasetError: There is none.
        """
        if source_class_id not in self.class_from_source_map:
            raise DatasetError(f"there is no class {source_class_id!r}: {', '.join(self.class_from_source_map)}")
        return self.class_from_source_map[source_class_id]

    def get_source_class_id(self, class_id: int, source: str) -> int:
        """The source's own id of a class.

        Raises:
            DatasetError: It is a class of another source.
        """
        info = self.class_info[class_id]
        if info["source"] != source:
            raise DatasetError(f"class {class_id} is of source {info['source']!r}, not {source!r}")
        found: int = info["id"]
        return found

    def source_image_link(self, image_id: int) -> Any:
        """Path of a picture, as `add_image` got it."""
        return self.image_info[image_id]["path"]

    def image_reference(self, image_id: int) -> Any:
        """Text by which a person finds the picture; to be overridden."""
        del image_id
        return ""

    def load_image(self, image_id: int) -> npt.NDArray[np.uint8]:
        """The picture, uint8 [H, W, 3], upright.

        Raises:
            ImageError: It cannot be read.
        """
        return read_image(self.image_info[image_id]["path"])

    def load_mask(self, image_id: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int32]]:
        """Masks bool [H, W, N] and class ids int [N], negative for crowds; none, unless overridden."""
        del image_id
        return np.zeros((0, 0, 0), np.bool_), np.zeros(0, np.int32)


def _by_source(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {f"{info['source']}.{info['id']}": index for index, info in enumerate(rows)}
