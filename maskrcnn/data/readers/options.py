"""How datasets are read: what annotations alone do not tell."""

from dataclasses import dataclass
from typing import Literal, get_args

from maskrcnn.errors import DatasetError

DatasetFormat = Literal["coco", "via", "labelme", "masks", "yolo"]
WrittenFormat = Literal["coco", "labelme", "via", "yolo"]
Grouping = Literal["folder", "video"]
MaskValues = Literal["objects", "parts", "classes"]


@dataclass(frozen=True)
class ReadOptions:
    """What annotations alone do not tell.

    Attributes:
        by_name: Look for images by their file name alone where the folder in the annotations does not exist, and make
            one image of COCO rows with one file.
        boxes_as_masks: Take the box of a COCO or YOLO object without an outline as its mask.
        mask_values: What the values or colors of mask images are. "objects": each is an object; "parts": each connected
            region (of pixels that share a side) of one value is an object; "classes": the same, and the value is its
            class, with 255 as void. By default, "objects" with 255 as void; "parts" if there is no other value than 0
            and the largest one; "classes" for a `SegmentationClass` alone.
        encoding: Encoding of annotation files that are not UTF-8, one of Python's names.

    Raises:
        DatasetError: A value is unknown.
    """

    by_name: bool = False
    boxes_as_masks: bool = False
    mask_values: MaskValues | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        if self.mask_values is not None and self.mask_values not in get_args(MaskValues):
            raise DatasetError(
                f"mask_values is {self.mask_values!r}; expected one of {', '.join(get_args(MaskValues))}"
            )
        if self.encoding is not None:
            try:
                "x".encode(self.encoding)
            except (LookupError, ValueError, TypeError) as error:
                raise DatasetError(
                    f"encoding is {self.encoding!r}; expected one of Python's, such as cp1252"
                ) from error
