"""The objects that a model detected in one image."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import numpy.typing as npt

from runtime.arguments import real
from runtime.errors import ImageError, InputError
from runtime.masks.edges import Edges, PasteMode, box_spans, mask_edges
from runtime.masks.paste import MaskCrop, MaskRuns, check_boxes, check_paste_mode, mask_runs, paste_masks, place_crops
from runtime.masks.polygons import Ring, trace_rings
from runtime.masks.regions import EdgeRuns
from runtime.masks.rle import RLE, encode_edges
from runtime.output import formats
from runtime.pictures.read import ImageSource
from runtime.pictures.remembered import CURE, RememberedImage, file_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from runtime.output.draw import DrawOptions

Index = int | slice | npt.NDArray[Any] | list[int] | list[bool]

# Field, dtype, axes; N is the number of detections, M the side of the masks of the network.
_ARRAYS = (
    ("boxes", np.float32, "N4"),
    ("scores", np.float32, "N"),
    ("class_ids", np.int32, "N"),
    ("mask_probabilities", np.float32, "NMM"),
)


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """The N objects detected in one image, in the order of the model: best score first.

    Masks are kept as the network returns them and pasted into the image when asked for. The arrays are read-only views;
    copy one to change it. Indexing with an int, a slice, or an array of ints or bools returns `Detections`; iterating
    yields `Detections` of one object each.

    The image is not kept, but detections that a predictor made can find it: by its path, or the array or PIL image as
    long as that exists. So `draw`, `show` and `save` need no image.

    Attributes:
        boxes: float32 [N, 4], x1, y1, x2, y2 in image pixels; x2, y2 exclusive.
        scores: float32 [N].
        class_ids: int32 [N], indices into `class_names`.
        mask_probabilities: float32 [N, M, M], 0..1, each stretched over its box.
        image_size: (height, width) of the image.
        class_names: name of each class id; 0 is the background.
        paste_mode: how masks are pasted into the image, see `runtime.masks.paste.paste_mask`.
        device: where the graph ran: "cpu", "cuda:N", "tensorrt:N", "openvino" or "openvino:GPU"; None if
            unknown.
        remembered: how the image is found again; None if that was not wanted, or is not known.
        edges: of an image predicted in tiles, the masks themselves, per mask int64 [2 R] (see
            `runtime.masks.edges.mask_edges`); `mask_probabilities` are then a coarse form of them. None: the masks are
            `mask_probabilities`, pasted.

    Raises:
        InputError: a field has the wrong type, dtype, shape or range.
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    class_ids: npt.NDArray[np.int32]
    mask_probabilities: npt.NDArray[np.float32]
    image_size: tuple[int, int]
    class_names: tuple[str, ...]
    paste_mode: PasteMode = "matterport"
    device: str | None = None
    remembered: RememberedImage | None = None
    edges: tuple[Edges, ...] | None = None

    def __post_init__(self) -> None:
        self._freeze_arrays()
        size = tuple(self.image_size)
        if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
            raise InputError(f"image_size is {self.image_size!r}; expected (height, width), positive integers")
        object.__setattr__(self, "image_size", size)
        if not isinstance(self.class_names, tuple) or not all(isinstance(n, str) for n in self.class_names):
            raise InputError(f"class_names is a {type(self.class_names).__name__}; expected a tuple of str")
        check_boxes(self.boxes)
        check_paste_mode(self.paste_mode)
        if not np.isfinite(self.scores).all():
            raise InputError("scores has a value that is not finite")
        if len(self) and not 0 <= self.class_ids.min() <= self.class_ids.max() < len(self.class_names):
            raise InputError(f"class_ids has a value outside 0..{len(self.class_names) - 1}, the ids with a class name")
        if not isinstance(self.remembered, RememberedImage | None):
            raise InputError(f"remembered is a {type(self.remembered).__name__}; expected that of a predictor, or None")
        masks = self.mask_probabilities
        if len(self) and not (masks.min() >= 0 and masks.max() <= 1):
            raise InputError("mask_probabilities has a value outside 0..1")
        if self.edges is not None:
            self._check_edges()

    def _check_edges(self) -> None:
        edges, (height, width) = self.edges, self.image_size
        sound = isinstance(edges, tuple) and len(edges) == len(self)
        for each in edges or ():
            sound = sound and isinstance(each, np.ndarray) and each.dtype == np.int64 and each.ndim == 1
            sound = sound and len(each) % 2 == 0 and bool((np.diff(each) > 0).all())
            sound = sound and (not len(each) or (each[0] >= 0 and each[-1] <= height * width))
        if not sound:
            raise InputError(f"edges are not those of {len(self)} masks in {height} x {width} pixels")

    def _freeze_arrays(self) -> None:
        count = len(self.boxes) if isinstance(self.boxes, np.ndarray) and self.boxes.ndim else 0
        side = self.mask_probabilities.shape[-1] if isinstance(self.mask_probabilities, np.ndarray) else 0
        lengths = {"N": count, "4": 4, "M": side}
        for name, dtype, axes in _ARRAYS:
            array = getattr(self, name)
            shape = tuple(lengths[axis] for axis in axes)
            if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != shape or 0 in shape[1:]:
                shown = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array)
                wanted = f"{np.dtype(dtype)} [{', '.join(axes)}]"
                raise InputError(f"{name} is {shown}; expected {wanted} with N = {count}")
            view = array.view()  # the caller's array stays writable
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Index) -> "Detections":
        if isinstance(index, int | np.integer) and not isinstance(index, bool):
            if not -len(self) <= index < len(self):
                raise IndexError(f"detection {index} of {len(self)}")
            index = slice(index, index + 1 if index != -1 else None)
        elif not isinstance(index, slice):
            index = np.asarray(index)
            if index.size == 0:
                index = index.astype(np.intp)
            if index.dtype.kind not in "iub" or index.ndim != 1:
                raise InputError("detections are indexed by an int, a slice, or a 1-D array of ints or bools")
            if index.dtype == np.bool_ and len(index) != len(self):
                raise InputError(f"the bool index has length {len(index)}; there are {len(self)} detections")
        kept = {name: getattr(self, name)[index] for name, _, _ in _ARRAYS}
        if self.edges is not None:
            kept["edges"] = tuple(self.edges[row] for row in np.arange(len(self))[index])
        return replace(self, **kept)

    def __iter__(self) -> Iterator["Detections"]:
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        if not len(self):
            return "0 detections"
        shown = [name if name.isprintable() else ascii(name) for name in self.names]
        counted = ", ".join(f"{number} {name}" for name, number in Counter(shown).most_common())
        low, high = float(self.scores.min()), float(self.scores.max())
        scores = f"score {high:.2f}" if len(self) == 1 else f"scores {low:.2f} to {high:.2f}"
        return f"{len(self)} detection{'s' if len(self) > 1 else ''}: {counted} ({scores})"

    def _repr_mimebundle_(self, **_wanted: object) -> dict[str, str]:
        """Return what a notebook shows: the image, if it can be found, and a table of the best detections."""
        from runtime.output.notebook import to_bundle  # noqa: PLC0415 - as for `draw`

        return to_bundle(self)

    def _repr_html_(self) -> str:
        """Return the same for programs that ask for HTML alone."""
        return self._repr_mimebundle_()["text/html"]

    def filter(
        self, min_score: float | None = None, classes: str | int | Iterable[str | int] | None = None
    ) -> "Detections":
        """Return the detections with a score of at least `min_score` and one of the given classes (names or ids).

        Raises:
            InputError: the model has no such class, or `min_score` is not a number from 0 to 1.
        """
        keep = np.ones(len(self), np.bool_)
        if min_score is not None:
            keep &= self.scores >= real("min_score", min_score)
        if classes is not None:
            wanted = [classes] if isinstance(classes, str | int | np.integer) else classes
            keep &= np.isin(self.class_ids, [class_id for item in wanted for class_id in self._ids_of(item)])
        return self[keep]

    def _ids_of(self, item: str | int) -> list[int]:
        ids = [i for i, name in enumerate(self.class_names) if item in (i, name)]
        if not ids:
            known = ", ".join(self.class_names[1:9]) + (", ..." if len(self.class_names) > 9 else "")
            raise InputError(f"there is no class {item!r}; expected an id or one of: {known}")
        return ids

    @property
    def names(self) -> tuple[str, ...]:
        """The class name of each detection."""
        return tuple(self.class_names[class_id] for class_id in self.class_ids)

    @property
    def pixel_boxes(self) -> npt.NDArray[np.int32]:
        """The boxes rounded half to even, int32 [N, 4]: where "matterport" masks are pasted."""
        return np.rint(self.boxes).astype(np.int32)

    @property
    def mask_runs(self) -> Sequence[MaskRuns | EdgeRuns]:
        """The masks in a small form, whose `crop()` and `area` are made one at a time."""
        if self.edges is not None:
            return [EdgeRuns(edges, self.image_size[0]) for edges in self.edges]
        return mask_runs(self.mask_probabilities, self.boxes, self.image_size, self.paste_mode)

    @cached_property
    def mask_crops(self) -> tuple[MaskCrop, ...]:
        """Per detection a bool [h, w] and the (y, x) of its first pixel: the cheapest form of the masks."""
        return tuple(runs.crop() for runs in self.mask_runs)

    @cached_property
    def masks(self) -> npt.NDArray[np.bool_]:
        """Full-size masks, bool [N, height, width], made when first asked for; they take N bytes per pixel."""
        if self.edges is not None:
            return place_crops(self.mask_crops, self.image_size)
        return paste_masks(self.mask_probabilities, self.boxes, self.image_size, self.paste_mode)

    @cached_property
    def rles(self) -> list[RLE]:
        """The masks as COCO run-length encodings, made when first asked for, without a bitmap."""
        return [rle for batch in self.edge_batches() for rle in encode_edges(batch, self.image_size)]

    @cached_property
    def polygons(self) -> list[list[Ring]]:
        """Per mask its outlines along the edges of pixels, rings of int32 [P, 2] x, y; see `runtime.masks.polygons`."""
        batches = self.edge_batches()
        return [trace_rings(edges, self.image_size[0]) for batch in batches for edges in batch]

    @property
    def areas(self) -> npt.NDArray[np.int64]:
        """The number of pixels of each mask, int64 [N]."""
        edges = (own for batch in self.edge_batches() for own in batch)
        return np.array([np.sum(own[1::2] - own[::2]) for own in edges], np.int64)

    def edge_batches(self) -> Iterator[list[Edges]]:
        """Yield the edges of the masks (see `runtime.masks.edges.mask_edges`), those of several masks at a time."""
        if self.edges is not None:
            return iter([list(self.edges)])
        masks, mode = self.mask_probabilities, self.paste_mode
        spans = box_spans(self.boxes, self.image_size, mode, masks.shape[2])
        return mask_edges(masks, *spans, self.image_size, mode)

    def to_coco(
        self,
        image_id: int | str,
        category_ids: Mapping[int, int] | None = None,
        *,
        segmentation: formats.Segmentation = "rle",
        tolerance: float = 0.0,
    ) -> list[dict[str, Any]]:
        """Return COCO results; see `runtime.output.formats.to_coco`."""
        return formats.to_coco(self, image_id, category_ids, segmentation=segmentation, tolerance=tolerance)

    def to_json(self, path: str | PathLike[str] | None = None) -> str:
        """Return one JSON document, and write it to `path` if given; see `runtime.output.formats.to_json`."""
        return formats.to_json(self, path)

    def to_supervision(self) -> Any:
        """Return `supervision.Detections`; see `runtime.output.formats.to_supervision`."""
        return formats.to_supervision(self)

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame`, one row per detection; see `runtime.output.formats.to_pandas`."""
        return formats.to_pandas(self)

    def to_labelme(self, path: str | PathLike[str], image_path: str | PathLike[str] | None = None) -> None:
        """Write a labelme file with polygons to edit; see `runtime.output.annotations.to_labelme`."""
        from runtime.output.annotations import to_labelme  # noqa: PLC0415 - used by few

        to_labelme(self, path, image_path)

    def to_yolo(self, path: str | PathLike[str]) -> None:
        """Write a label file of a YOLO segmentation dataset; see `runtime.output.annotations.to_yolo`."""
        from runtime.output.annotations import to_yolo  # noqa: PLC0415 - used by few

        to_yolo(self, path)

    @property
    def image_path(self) -> str | None:
        """The absolute path of the image; None if no path was predicted, or it is not remembered."""
        return None if self.remembered is None else self.remembered.path

    def read_image(self) -> npt.NDArray[np.uint8]:
        """Return the image that was predicted, uint8 [H, W, 3] RGB, read-only; a file is read again.

        Raises:
            ImageError: it is gone, has changed, or is not remembered.
        """
        if self.remembered is None:
            raise ImageError(
                f"these detections remember no image (they were made by hand, or with remember_image=False): {CURE}"
            )
        return self.remembered.read()

    def draw(self, image: ImageSource | None = None, **options: Unpack["DrawOptions"]) -> "Image":
        """Return the image with the detections drawn on it.

        Args:
            image: the image that the detections belong to; None for the one that was predicted.
            **options: see `runtime.output.draw.draw_detections`.

        Raises:
            ImageError: the image cannot be read or, if none is given, is gone, has changed, or is not remembered.
            InputError: its size is not `image_size`, or an option is out of range.
        """
        from runtime.output.draw import draw_detections  # noqa: PLC0415 - loads fonts

        return draw_detections(self.read_image() if image is None else image, self, **options)

    def show(self, image: ImageSource | None = None, **options: Unpack["DrawOptions"]) -> None:
        """Show what `draw` returns, in the notebook or with the system's viewer of images.

        Raises:
            ImageError: as for `draw`, and so is InputError.
            OutputError: there is no display, or no viewer.
        """
        from runtime.output.show import show  # noqa: PLC0415 - as for `draw`

        show(self.draw(image, **options))

    def save(
        self, path: str | PathLike[str], image: ImageSource | None = None, **options: Unpack["DrawOptions"]
    ) -> None:
        """Write what `draw` returns to a file, completely or not at all; an existing one is replaced.

        Args:
            path: a file whose suffix is the format: .png, .jpg, .webp, .bmp or .tif. Folders are created.
            image: as for `draw`.
            **options: as for `draw`.

        Raises:
            ImageError: as for `draw`, and so is InputError (also for a path that is none).
            OutputError: the suffix is unknown, the file cannot be written, or it is the image itself.
        """
        from runtime.output.show import check_target, save  # noqa: PLC0415 - as for `draw`

        known = file_of(image), None if self.remembered is None else self.remembered.file
        check_target(path, filter(None, known))
        save(self.draw(image, **options), path)

    def splash(self, image: ImageSource | None = None) -> "Image":
        """Return the image in gray except inside the masks; see `runtime.output.splash.color_splash`.

        Args:
            image: as for `draw`.

        Raises:
            ImageError: as for `draw`, and so is InputError.
        """
        from runtime.output.splash import color_splash  # noqa: PLC0415 - as for `draw`

        return color_splash(self.read_image() if image is None else image, self)
