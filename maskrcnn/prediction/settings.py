"""The settings that the results of a run depend on."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runtime.errors import ArtifactError

# Without a value they are not written, so that runs of older versions can be resumed.
_LEFT_OUT = ("track", "tile", "overlap")


@dataclass(frozen=True)
class RunSettings:
    """Runs with equal settings give equal results for equal images. The device is not a setting.

    Attributes:
        model: SHA-256, see `model_digest`.
        class_names: Names by class id; 0 is the background.
        score_threshold: Lowest score of a detection.
        nms_threshold: Largest IoU within a class.
        classes: Names of the classes to keep; None keeps all.
        every: Predict every N-th video frame, beginning with the first.
        value_range: Sample values that become 0 and 255; None: no range.
        bands: Bands of TIFF files that are the channels; None: all.
        track: Whether detections in videos have ids; None: no.
        tile: Side of the tiles in pixels; None: images are predicted whole.
        overlap: Share of the side that neighboring tiles have in common.
        version: Version of the documents.
    """

    model: str
    class_names: tuple[str, ...]
    score_threshold: float
    nms_threshold: float
    classes: tuple[str, ...] | None = None
    every: int = 1
    value_range: tuple[float, ...] | None = None
    bands: tuple[int, ...] | None = None
    track: bool | None = None
    tile: int | None = None
    overlap: float | None = None
    version: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        values = {name: value for name, value in asdict(self).items() if value is not None or name not in _LEFT_OUT}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "RunSettings":
        """Return the settings that `to_dict` made; raise TypeError if it did not."""
        if not isinstance(stored, dict):
            raise TypeError("expected an object")
        values: dict[str, Any] = {
            name: tuple(each) if isinstance(each, list) else each for name, each in stored.items()
        }
        made = cls(**values)
        thresholds = (made.score_threshold, made.nms_threshold)
        sound = (
            _all((made.model,), str) and _all(made.class_names, str) and _all(thresholds, int, float)
            and (made.classes is None or _all(made.classes, str)) and _all((made.every, made.version), int)
            and (made.value_range is None or _all(made.value_range, int, float))
            and (made.bands is None or _all(made.bands, int)) and made.track in (None, True)
            and (made.tile is None or _all((made.tile,), int))
            and (made.overlap is None or _all((made.overlap,), float, int))
        )  # fmt: skip
        if not sound:
            raise TypeError("a setting has another type")
        return made

    @property
    def digest(self) -> str:
        """A short SHA-256 of the settings; each document records it."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]

    def differences(self, stored: dict[str, Any]) -> list[str]:
        """Describe the settings that differ from `stored`, which `to_dict` made."""
        ours = self.to_dict()
        names = [name for name in [*ours, *(set(stored) - set(ours))] if ours.get(name) != stored.get(name)]
        return [f"{name} was {_short(stored.get(name))} and is now {_short(ours.get(name))}" for name in names]


def model_digest(path: Path, config: str = "") -> str:
    """Return the SHA-256 of a model: of the bytes of a file, or the names and bytes of all files in a folder.

    Args:
        path: The checkpoint or artifact. A missing one has a digest too; loading it gives the better error.
        config: JSON of the configuration, for checkpoints that do not store one.

    Raises:
        ArtifactError: A file cannot be read, or has vanished since the model was opened.
    """
    digest = hashlib.sha256(config.encode())
    try:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                digest.update(b"" if file == path else file.relative_to(path).as_posix().encode() + b"\0")
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
    except OSError as error:  # another export has replaced it since it was opened
        raise ArtifactError(f"cannot read the model at {path}: {error.strerror}: run the command again") from error
    return digest.hexdigest()


def _all(values: object, *kinds: type) -> bool:
    return isinstance(values, tuple) and all(type(value) in kinds for value in values)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:36]}...{text[-1]}"
