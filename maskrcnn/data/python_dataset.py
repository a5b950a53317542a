"""A base class for datasets written in Python, compatible with matterport's `Dataset`.

A subclass written for matterport's Mask_RCNN works with
`from maskrcnn.data.python_dataset import PythonDataset as Dataset`.
"""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maskrcnn.errors import DatasetError
from runtime.pictures.read import read_image

_BACKGROUND: dict[str, Any] = {"source": "", "id": 0, "name": "BG"}


class PythonDataset:
    """Base class of datasets written in Python.

    Override `load_mask` (and `load_image` if images are not files). Call `add_class` and `add_image` for everything,
    then `prepare`, and pass the dataset to `from_python`.

    Attributes:
        class_info: One dict per class with source, id and name; the first is the background.
        image_info: One dict per image with source, id, path and the other arguments of `add_image`.
        num_classes: Number of classes, with the background. This and all following attributes exist after `prepare`.
        class_ids: int32 [num_classes], 0, 1, ...
        class_names: Names by class id, up to the first comma.
        num_images: Number of images.
        image_ids: int32 [num_images], 0, 1, ...; the ids that `load_image` and `load_mask` accept.
        class_from_source_map: Class id by "source.id".
        image_from_source_map: Image id by "source.id".
        sources: Sources of the classes.
        source_class_ids: Class ids by source, each with the background.
    """

    def __init__(self, class_map: object = None) -> None:
        del class_map  # never had an effect, but old subclasses pass it
        self.class_info: list[dict[str, Any]] = [dict(_BACKGROUND)]
        self.image_info: list[dict[str, Any]] = []
        self.source_class_ids: dict[str, list[int]] = {}

    def add_class(self, source: str, class_id: int, class_name: str) -> None:
        """Add a class; a source and id that were added before are ignored.

        Raises:
            DatasetError: The source's name contains a dot.
        """
        if "." in source:
            raise DatasetError(f"the source is called {source!r}; expected a name without a dot")
        if not any(info["source"] == source and info["id"] == class_id for info in self.class_info):
            self.class_info.append({"source": source, "id": class_id, "name": class_name})

    def add_image(self, source: str, image_id: int | str, path: Any, **kwargs: Any) -> None:
        """Add an image; additional arguments are stored in its `image_info`."""
        self.image_info.append({"id": image_id, "source": source, "path": path, **kwargs})

    def prepare(self, class_map: object = None) -> None:
        """Number classes and images after all have been added."""
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
        """Return the class id of "source.id", for instance "coco.12".

        Raises:
            DatasetError: There is no such class.
        """
        if source_class_id not in self.class_from_source_map:
            known = ", ".join(self.class_from_source_map)
            raise DatasetError(f"there is no class {source_class_id!r}: expected one of {known}")
        return self.class_from_source_map[source_class_id]

    def get_source_class_id(self, class_id: int, source: str) -> int:
        """Return the id that `source` uses for a class.

        Raises:
            DatasetError: The class is from another source.
        """
        info = self.class_info[class_id]
        if info["source"] != source:
            raise DatasetError(f"class {class_id} is from source {info['source']!r}, not {source!r}")
        found: int = info["id"]
        return found

    def source_image_link(self, image_id: int) -> Any:
        """Return the path of an image, as given to `add_image`."""
        return self.image_info[image_id]["path"]

    def image_reference(self, image_id: int) -> Any:
        """Return text that identifies the image for people; empty unless overridden."""
        del image_id
        return ""

    def load_image(self, image_id: int) -> npt.NDArray[np.uint8]:
        """Return the image, uint8 [H, W, 3], with its EXIF orientation applied.

        Raises:
            ImageError: The file cannot be read.
        """
        return read_image(self.image_info[image_id]["path"])

    def image_file(self, image_id: int) -> Path | None:
        """Return the file of an image, for reading it with the configuration's `pixels`; None if `load_image` does."""
        path = self.image_info[image_id]["path"]
        stock = type(self).load_image is PythonDataset.load_image
        return Path(path) if stock and isinstance(path, str | PathLike) else None

    def load_mask(self, image_id: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int32]]:
        """Return masks, bool [H, W, N], and class ids, int [N], negative for crowds; none unless overridden."""
        del image_id
        return np.zeros((0, 0, 0), np.bool_), np.zeros(0, np.int32)


def _by_source(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {f"{info['source']}.{info['id']}": index for index, info in enumerate(rows)}
