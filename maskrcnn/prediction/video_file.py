"""Reading frames from videos and writing them; the only module that uses PyAV."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from runtime.errors import ImageError, MissingPackageError

_CODECS = ("libx264", "mpeg4")  # some builds of FFmpeg lack the first
_USUAL_RATE = Fraction(25)  # for a file without a frame rate


class Frame(NamedTuple):
    """A frame as a player shows it.

    Attributes:
        number: Index in the video, from 0.
        time: Seconds from the start of the video; None if the file does not store it.
        pixels: uint8 [H, W, 3] RGB, upright.
    """

    number: int
    time: float | None
    pixels: npt.NDArray[np.uint8]


class VideoFacts(NamedTuple):
    """What the header of a video says.

    Attributes:
        rate: Frames per second.
        frames: Number of frames according to the header, perhaps estimated; None if unknown.
    """

    rate: Fraction
    frames: int | None


def require_video() -> Any:
    """Import PyAV.

    Raises:
        MissingPackageError: It is not installed.
    """
    try:
        import av  # noqa: PLC0415  (an extra)
    except ModuleNotFoundError as error:
        if error.name != "av":
            raise
        raise MissingPackageError("av", "video", "reading and writing videos") from error
    return av


def read_facts(path: Path) -> VideoFacts:
    """Read the header of a video.

    Raises:
        ImageError: The file is not a video, or has no video stream.
        MissingPackageError: PyAV is not installed.
    """
    with _opened(path) as (container, stream):
        rate = Fraction(stream.average_rate or stream.guessed_rate or _USUAL_RATE)
        frames = stream.frames
        if not frames and container.duration:
            frames = math.ceil(container.duration / 1_000_000 * rate)  # microseconds
        return VideoFacts(rate, frames or None)


def read_frames(path: Path) -> Iterator[Frame]:
    """Decode a video from the first frame. Frames that differ in size from the first are scaled to its size.

    Raises:
        ImageError: The file is not a video, has no video stream, or is damaged; frames before the damage come first.
        MissingPackageError: PyAV is not installed.
    """
    with _opened(path) as (container, stream):
        stream.thread_type = "AUTO"
        size: tuple[int, int] | None = None
        for number, frame in enumerate(container.decode(stream)):
            # Phones store the frame as the sensor sees it, and the angle to turn it counterclockwise.
            upright = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))
            size = size or upright.shape[:2]
            if upright.shape[:2] != size:
                upright = np.asarray(Image.fromarray(upright).resize(size[::-1], Image.Resampling.BILINEAR))
            yield Frame(number, None if frame.time is None else round(float(frame.time), 6), upright)


def write_video(path: Path, frames: Iterable[Image.Image], rate: Fraction) -> None:
    """Write an MP4: H.264 if PyAV has it, else MPEG-4.

    Args:
        path: The file, with any suffix.
        frames: At least one RGB image, all of one size. Odd sides become even: the last row or column is repeated.
        rate: Frames per second.

    Raises:
        ImageError: The encoder refuses the frames.
        OSError: The file cannot be written.
        MissingPackageError: PyAV is not installed.
    """
    av = require_video()
    try:
        with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = None
            for image in frames:
                pixels = np.asarray(image)
                height, width = pixels.shape[:2]
                pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), "edge")  # a color covers 2 x 2
                if stream is None:
                    stream = _add_stream(av, container, pixels.shape[:2], rate.limit_denominator(1001))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            if stream is not None:
                container.mux(stream.encode(None))
    except av.error.FFmpegError as error:
        if isinstance(error, OSError):  # such as a full disk
            raise
        raise ImageError(f"its frames cannot be written as a video: {error.strerror}") from error


def _add_stream(av: Any, container: Any, size: tuple[int, ...], rate: Fraction) -> Any:
    codec = next(name for name in _CODECS if name in av.codecs_available)
    stream = container.add_stream(codec, rate=rate)
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"  # which every player supports
    if codec == "libx264":
        stream.options = {"crf": "20"}
    else:
        stream.bit_rate = round(size[0] * size[1] * rate * Fraction(1, 4))  # a quarter of a bit per pixel
    return stream


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    av = require_video()
    name = repr(str(path))
    if not path.is_file():
        raise ImageError(f"{name} is not a file; expected a video")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ImageError(f"{name} has no video stream; expected a video")
            yield container, container.streams.video[0]
    except av.error.FFmpegError as error:
        raise ImageError(f"{name} cannot be read as a video: {error.strerror}") from error
