"""Predictor: image in, detections out."""

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, overload

import numpy as np
import numpy.typing as npt

from runtime import artifact as names
from runtime.arguments import count, flag
from runtime.artifact import Metadata
from runtime.artifact_files.memory import MemoryArtifact
from runtime.artifact_files.read import read_metadata, require_proven
from runtime.detections import Detections
from runtime.engines.engine import Engine
from runtime.engines.inputs import allowed_overlap, allowed_score, check_batch, check_inputs, check_size
from runtime.engines.opening import Opening
from runtime.engines.options import EngineOptions
from runtime.engines.protocol import Arrays
from runtime.errors import ImageError
from runtime.pictures.letterbox import Letterbox, Pixels, ResizePolicy
from runtime.pictures.pixels import check_bands
from runtime.pictures.read import MAX_PIXELS, ImageSource
from runtime.pictures.remembered import Reading, RememberedImage
from runtime.placement import Placement
from runtime.steps import letterbox_picture, to_detections
from runtime.stream import OnError, check_pictures, stream
from runtime.tiles.predict import open_for, predict_tiles
from runtime.tiles.tiling import OVERLAP, TILE, Tiling

_DEFAULTS = EngineOptions()
_SETTINGS = (
    "score_threshold",
    "nms_threshold",
    "max_detections",
    "max_pixels",
    "value_range",
    "bands",
    "remember_image",
)  # travel when it is pickled


class Predictor:
    """An exported Mask R-CNN, ready to run; `close` it, or use it in a `with` statement, to free the engine.

    Args:
        path: An `.onnx` file or SavedModel folder written by maskrcnn-export, or the bytes of an `.onnx` file. They are
            kept in a temporary file until the predictor is closed.
        device: "auto" uses CUDA if it is available, else the CPU, and logs its choice; "cpu", "cuda", "cuda:N",
            "tensorrt" and "tensorrt:N" use that device or raise an error. So do "openvino", "openvino:GPU" and
            "openvino:NPU", which run an `.onnx` file in OpenVINO on the processor, an Intel GPU or an Intel NPU.
        score_threshold: Lowest score of returned detections; None for the artifact's default.
        nms_threshold: Largest IoU of two detections of one class; None for the artifact's default.
        max_detections: Most detections per image, best first; None for the artifact's limit.
        max_pixels: Most pixels of an image, checked in its header before it is decoded; None for 100 million.
        value_range: The sample values that become 0 and 255 in images of more than 8 bits, such as (0, 4095) for a
            12-bit camera; None for the artifact's. 8-bit images stay as they are.
        bands: Bands of TIFF files that are the channels of the image, counted from 1; None for the artifact's.
        remember_image: Whether detections can find their image again, for `draw()`, `show()`, `save(path)` and
            notebooks: by its path, or the array or PIL image as long as that exists. Pixels are never kept.
        verify_digest: Whether to compare the artifact's bytes with the recorded SHA-256, and its graph with that in the
            verdict.
        require_verdict: Whether to refuse an artifact that is not proven to equal its model: its verdict failed, or
            belongs to another graph.
        engine: Threads, cache and GPU options.

    Raises:
        ArtifactError: There is no artifact, or it is foreign, damaged, too new, or not proven (ArtifactVerdictError).
        DeviceError: The device cannot be used, or cannot honor an option of `engine`.
        MissingPackageError: The engine is not installed.
        InputError: A threshold or limit is out of range, or `remember_image` is neither True nor False.
        EngineError: The engine cannot be used in this process, because the process was forked.
        OutOfMemoryError: The device has too little memory.
        OutputError: The cache cannot be written.
    """

    def __init__(  # noqa: PLR0913  (one argument per setting)
        self,
        path: str | Path | bytes | bytearray | memoryview,
        device: str = "auto",
        *,
        score_threshold: float | None = None,
        nms_threshold: float | None = None,
        max_detections: int | None = None,
        max_pixels: int | None = None,
        value_range: tuple[float, ...] | None = None,
        bands: tuple[int, ...] | None = None,
        remember_image: bool = True,
        verify_digest: bool = True,
        require_verdict: bool = True,
        engine: EngineOptions = _DEFAULTS,
    ) -> None:
        self._memory = MemoryArtifact(path) if isinstance(path, bytes | bytearray | memoryview) else None
        self.path = Path(path) if self._memory is None else self._memory.path  # type: ignore[arg-type]
        self.metadata: Metadata = read_metadata(self.path, verify_digest)
        if require_verdict:
            require_proven(self.path, self.metadata, verify_digest)
        self.score_threshold = score_threshold
        self.nms_threshold = nms_threshold
        self.max_detections = max_detections
        self.max_pixels = max_pixels
        self.remember_image = remember_image
        self.pixels = self.metadata.pixels.replaced(value_range, bands)
        check_bands(self.pixels, self.metadata.image_channels)
        self._engine = Engine(Opening.of(self.path, device, engine, verify_digest, require_verdict), self.metadata)

    def __repr__(self) -> str:
        """Return artifact, device, number of classes and thresholds."""
        artifact = "bytes" if self._memory is not None else repr(self.path.name)
        closed = ", closed" if self._engine.closed else ""
        return (
            f"Predictor({artifact}, {self.metadata.format} on {self.device}, {len(self.class_names) - 1} classes, "
            f"score_threshold={self.score_threshold:g}, nms_threshold={self.nms_threshold:g}{closed})"
        )

    def close(self) -> None:
        """Release the engine; closing again does nothing.

        Runs in progress finish, and the last one frees the engine's memory. After that, methods that need the engine
        raise `ClosedError`, and so does a running stream, after the results that the engine had already returned.
        """
        self._engine.close()
        if self._memory is not None:
            self._memory.close()

    def __enter__(self) -> Self:
        """Return the predictor."""
        self._engine.require_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the predictor."""
        self.close()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Support `pickle`: path and digest of the artifact, device, options, and the current thresholds and limits.

        Unpickling opens the artifact again.

        Raises:
            ClosedError: The predictor is closed.
        """
        self._engine.require_open()
        return _open_again, (type(self), self._engine.opening, {name: getattr(self, name) for name in _SETTINGS})

    @property
    def score_threshold(self) -> float:
        """Lowest score of returned detections, 0 to 1; assign None for the artifact's default.

        This and the next four settings may be changed at any time. A value that the constructor would refuse raises
        `InputError` and changes nothing.
        """
        return self._score_threshold

    @score_threshold.setter
    def score_threshold(self, value: float | None) -> None:
        self._score_threshold = allowed_score(value, self.metadata)

    @property
    def nms_threshold(self) -> float:
        """Largest IoU of two detections of one class, 0 to 1; assign None for the artifact's default."""
        return self._nms_threshold

    @nms_threshold.setter
    def nms_threshold(self, value: float | None) -> None:
        self._nms_threshold = allowed_overlap(value, self.metadata)

    @property
    def max_detections(self) -> int:
        """Most detections per image, best first; assign None for the artifact's limit, which is also the largest."""
        return self._max_detections

    @max_detections.setter
    def max_detections(self, value: int | None) -> None:
        most = self.metadata.max_detections
        expected = f"an integer from 1 to {most}, the limit of the artifact"
        self._max_detections = most if value is None else count("max_detections", value, most=most, expected=expected)

    @property
    def max_pixels(self) -> int:
        """Most pixels of an image, checked in its header before it is decoded; assign None for 100 million."""
        return self._max_pixels

    @max_pixels.setter
    def max_pixels(self, value: int | None) -> None:
        self._max_pixels = MAX_PIXELS if value is None else count("max_pixels", value)

    @property
    def remember_image(self) -> bool:
        """Whether the next detections can find their image again."""
        return self._remember_image

    @remember_image.setter
    def remember_image(self, value: bool) -> None:
        self._remember_image = flag("remember_image", value)

    @property
    def device(self) -> str:
        """Where the graph runs: "cpu", "cuda:N", "tensorrt:N", "openvino" or, on a GPU or NPU, "openvino:GPU"."""
        return self._engine.device

    @property
    def value_range(self) -> tuple[float, ...] | None:
        """The sample values that become 0 and 255 in images of more than 8 bits; None: no range."""
        return self.pixels.value_range

    @property
    def bands(self) -> tuple[int, ...] | None:
        """The bands of a TIFF file that are the channels, counted from 1; None: all."""
        return self.pixels.bands

    @property
    def image_channels(self) -> int:
        """The number of channels of an image."""
        return self.metadata.image_channels

    @property
    def resize(self) -> ResizePolicy:
        """How an image becomes the network's input."""
        return self.metadata.resize

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class id; 0 is the background."""
        return self.metadata.class_names

    def __call__(
        self, image: ImageSource, *, score_threshold: float | None = None, nms_threshold: float | None = None
    ) -> Detections:
        """Return the detections in one image.

        Args:
            image: A path; bytes; a file in binary mode, or an upload of a web framework; a PIL image; or a uint8 array
                [H, W, 3] RGB (of OpenCV's BGR, pass `image[:, :, ::-1]`). With a value range, arrays of other types of
                numbers too.
            score_threshold: Lowest score of returned detections, for this call; None for the predictor's.
            nms_threshold: Largest IoU of two detections of one class, for this call; None for the predictor's.

        Raises:
            ImageError: The image cannot be used.
            InputError: A threshold is out of range.
            EngineError: The engine failed (OutOfMemoryError: for lack of memory), as in all methods that run it.
            ClosedError: The predictor is closed, as in all methods that need the engine.
        """
        run = self._run_with(score_threshold, nms_threshold)
        letterbox, prepared = self.prepare(image)
        outputs = run(prepared[None], np.array([letterbox.window], np.float32))
        return self.finish({name: array[0] for name, array in outputs.items()}, letterbox)

    def predict_batch(
        self,
        images: Iterable[ImageSource],
        batch_size: int = 4,
        *,
        score_threshold: float | None = None,
        nms_threshold: float | None = None,
    ) -> list[Detections]:
        """Return the detections in several images of any sizes, in their order.

        Images with the same input size run together, at most `batch_size` at a time. The next images are read while the
        engine works. Thresholds are as for a call.

        Raises:
            ImageError: An image cannot be used.
            InputError: `batch_size` is not a positive integer, `images` is a single image, or a threshold is out of
                range.
        """
        check_pictures(images, batch_size)
        images = list(images)
        batch_size = min(int(batch_size), max(len(images), 1))
        # Far enough ahead that no image runs in a smaller batch because results are waiting for it.
        ahead = len(images) + batch_size
        thresholds: dict[str, Any] = {"score_threshold": score_threshold, "nms_threshold": nms_threshold}
        return list(self.predict_stream(images, batch_size, ahead, **thresholds))

    @overload
    def predict_stream(
        self,
        images: Iterable[ImageSource],
        batch_size: int = 1,
        ahead: int | None = None,
        *,
        on_error: Literal["raise"] = "raise",
        rles: bool = False,
        score_threshold: float | None = None,
        nms_threshold: float | None = None,
    ) -> Generator[Detections]: ...

    @overload
    def predict_stream(
        self,
        images: Iterable[ImageSource],
        batch_size: int = 1,
        ahead: int | None = None,
        *,
        on_error: Literal["yield"],
        rles: bool = False,
        score_threshold: float | None = None,
        nms_threshold: float | None = None,
    ) -> Generator[Detections | ImageError]: ...

    def predict_stream(
        self,
        images: Iterable[ImageSource],
        batch_size: int = 1,
        ahead: int | None = None,
        *,
        on_error: OnError = "raise",
        rles: bool = False,
        score_threshold: float | None = None,
        nms_threshold: float | None = None,
    ) -> Generator[Any]:
        """Predict images one after another, in order; `images` may be endless, such as a camera.

        One thread reads the next images, a second runs the engine, and a third maps the results back to the images.
        Close the generator (`contextlib.closing`) if you may leave it early: each thread then finishes its current step
        and ends. `images` is read in one thread and, if it is a generator, closed in that thread.

        Args:
            images: Images as for a call. An array may be overwritten once the next image is requested.
            batch_size: Most images in a batch. A batch holds images with one input size from those taken ahead.
            ahead: Most images taken from `images` before their results are taken, at least `batch_size`; None means
                three times `batch_size`. With 1, each image is taken when its result is requested, as suits a live
                camera. An image waits for others of its input size until `ahead - batch_size` are taken.
            on_error: What to do about an image that cannot be used: "raise" its `ImageError` in its place and end, or
                "yield" the `ImageError` instead of detections and continue.
            rles: Compute `Detections.rles` in the third thread instead of on first access.
            score_threshold: As for a call.
            nms_threshold: As for a call.

        Yields:
            One result per image.

        Raises:
            ImageError: An image cannot be used.
            InputError: An argument is out of range, or `images` is a single image.
            Exception: What `images` raises, after the results of the images before it.
        """
        self._engine.require_open()
        run = self._run_with(score_threshold, nms_threshold)
        return stream(self, images, batch_size, ahead, on_error=on_error, rles=rles, run=run)

    def predict_tiled(
        self,
        image: ImageSource,
        tile: int = TILE,
        overlap: float = OVERLAP,
        batch_size: int = 1,
        *,
        score_threshold: float | None = None,
        nms_threshold: float | None = None,
    ) -> Detections:
        """Return the detections in a large image, which goes through the network in square tiles.

        The tiles overlap, and what several tiles show of one object is merged. So an object is found complete even if
        it is larger than a tile. An image that fits into one tile is predicted as by a call. Memory grows with the
        image itself and with what is found, not with the number of tiles times their masks.

        Args:
            image: As for a call.
            tile: Side of a tile in image pixels, at least 64: best the size of the images that the model was trained
                on, so that objects reach the network in the size that it knows.
            overlap: Share of the side that neighbors have in common at least, 0 to 0.9. Objects smaller than the
                overlap are complete in one of the tiles. With 0, objects at the sides of tiles stay cut.
            batch_size: Most tiles in a batch. The next tiles are cut and the last results merged while the engine
                works.
            score_threshold: As for a call.
            nms_threshold: As for a call.

        Returns:
            Detections with `edges`, best score first; `max_detections` applies to each tile, not to the image.

        Raises:
            ImageError: The image cannot be used.
            InputError: An argument is out of range, or the model cannot use tiles of this size.
        """
        tiling = Tiling(tile, overlap)
        tiling.check(self.resize)
        batch_size = count("batch_size", batch_size)
        run = self._run_with(score_threshold, nms_threshold)
        self._engine.require_open()
        picture = open_for(self, image)
        found = predict_tiles(self, picture, tiling, batch_size, run)
        if self.remember_image:
            reading = Reading(self.image_channels, self.max_pixels, self.pixels, tiling.checksums)
            found = replace(found, remembered=RememberedImage(image, tiling.checksums(picture), reading))
        return found

    def warm_up(self, sizes: Iterable[tuple[int, int]], batch_size: int = 1) -> None:
        """Run a synthetic image of each size, so that the first real one does not wait for the engine to prepare.

        Args:
            sizes: (height, width) of the images to come, in pixels.
            batch_size: How many of them will run together.

        Raises:
            ImageError: The model cannot use images of a size.
            InputError: `batch_size` is not a positive integer, a size is not a pair of them, or both together are too
                large.
        """
        check_pictures((), batch_size)
        windows, channels = {}, self.metadata.image_channels
        for size in sizes:
            check_size(size, self.max_pixels)
            letterbox, prepared = self.prepare(np.zeros((*size, channels), np.uint8))
            windows[prepared.shape] = letterbox.window
        for height, width, _ in windows:
            check_batch(batch_size, height, width)
        for (height, width, _), window in windows.items():
            # Large cells in many colors, with the lowest threshold: detections in them give the mask head work.
            side = self.metadata.resize.size_multiple // 2
            cells = np.random.default_rng(0).integers(0, 256, (height // side, width // side, channels), np.uint8)
            image = cells.repeat(side, 0).repeat(side, 1).astype(self.metadata.resize.image_dtype, copy=False)
            inputs = self._inputs(np.stack([image] * batch_size), np.array([window] * batch_size, np.float32))
            with self._engine.running() as backend:
                backend({**inputs, names.SCORE_THRESHOLD: np.asarray(self.metadata.lowest_score, np.float32)})

    def explain(self, image: ImageSource | None = None) -> Placement:
        """Report where each node of the graph is executed, and the time by operator type.

        Args:
            image: The image to run on; None for a small blank one, with which the times are meaningless.

        Raises:
            ImageError: The image cannot be used.
        """
        if image is None:
            resize = self.metadata.resize
            height, width = (side or 2 * resize.size_multiple for side in self.metadata.input_shape[1:])
            prepared: Pixels = np.zeros((height, width, self.metadata.image_channels), resize.image_dtype)
            window = (0, 0, height, width)
        else:
            letterbox, prepared = self.prepare(image)
            window = letterbox.window
        inputs = self._inputs(prepared[None], np.array([window], np.float32))
        with self._engine.running() as backend:
            return backend.explain(inputs)

    def borders(self, images: Pixels, windows: npt.NDArray[np.float32]) -> Arrays:
        """Return the tensors between the stages of the graph, such as features, proposals and scores.

        Args:
            images: As for `run`.
            windows: As for `run`.

        Returns:
            The tensors by name (see `borders` in `docs/artifact.md`), batch first; boxes are y1, x1, y2, x2, normalized
            to the input.

        Raises:
            InputError: As for `run`.
        """
        inputs = self._inputs(images, check_inputs(images, windows, self.metadata))
        with self._engine.running() as backend:
            return backend.borders(inputs, self.metadata.borders)

    def prepare(self, image: ImageSource) -> tuple[Letterbox, Pixels]:
        """Read and letterbox one image: the first of three steps, before `run` and `finish`.

        Returns:
            The way back to image pixels, and [input height, input width, channels] of the type of `images` in
            `Metadata.inputs`.

        Raises:
            ImageError: The image cannot be used.
        """
        self._engine.require_open()
        return letterbox_picture(
            image,
            self.metadata.image_channels,
            self.metadata.resize,
            self.max_pixels,
            self.pixels,
            remember=self.remember_image,
        )

    def run(
        self,
        images: Pixels,
        windows: npt.NDArray[np.float32],
        *,
        score_threshold: float | None = None,
        nms_threshold: float | None = None,
    ) -> Arrays:
        """Run the graph on letterboxed images.

        Args:
            images: [B, H, W, C] as `prepare` makes them: uint8 or float32, H and W multiples of 64 or 32.
            windows: float32 [B, 4] y1, x1, y2, x2 of the images inside the padding, in input pixels.
            score_threshold: As for a call.
            nms_threshold: As for a call.

        Returns:
            The outputs by name, as `Metadata.outputs` describes them.

        Raises:
            InputError: A type, rank or size is wrong, a window is not finite, or a threshold is out of range.
            EngineError: The engine failed (OutOfMemoryError: for lack of memory).
        """
        inputs = self._inputs(images, check_inputs(images, windows, self.metadata))
        given = self._checked(score_threshold, nms_threshold)
        inputs |= {name: np.asarray(value, np.float32) for name, value in given.items()}
        with self._engine.running() as backend:
            return backend(inputs)

    def finish(self, outputs: Mapping[str, npt.NDArray[Any]], letterbox: Letterbox) -> Detections:
        """Map one image's outputs of `run`, without the batch axis, back to the image: the last step."""
        found = to_detections(outputs, letterbox, self.class_names, self.metadata.mask_paste, self.device)
        return found[: self.max_detections]

    def _run_with(
        self, score_threshold: float | None, nms_threshold: float | None
    ) -> Callable[[Pixels, npt.NDArray[np.float32]], Arrays]:
        """Return `run` with the thresholds of one call, after a check of them."""
        given = self._checked(score_threshold, nms_threshold)
        return partial(self.run, score_threshold=score_threshold, nms_threshold=nms_threshold) if given else self.run

    def _checked(self, score_threshold: float | None, nms_threshold: float | None) -> dict[str, float]:
        """Return the thresholds that are given."""
        given = {}
        if score_threshold is not None:
            given[names.SCORE_THRESHOLD] = allowed_score(score_threshold, self.metadata)
        if nms_threshold is not None:
            given[names.NMS_THRESHOLD] = allowed_overlap(nms_threshold, self.metadata)
        return given

    def _inputs(self, images: Pixels, windows: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
        return {
            names.IMAGES: images,
            names.WINDOWS: windows,
            names.SCORE_THRESHOLD: np.asarray(self.score_threshold, np.float32),
            names.NMS_THRESHOLD: np.asarray(self.nms_threshold, np.float32),
        }


def _open_again(kind: type[Predictor], opening: Opening, settings: Mapping[str, Any]) -> Predictor:
    """Unpickle a predictor."""
    opening.check()
    checks: dict[str, Any] = {"verify_digest": opening.verify_digest, "require_verdict": opening.require_verdict}
    return kind(opening.path, opening.device, engine=opening.engine, **checks, **settings)
