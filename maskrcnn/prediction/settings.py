"""What the results of a run depend on, besides its pictures."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunSettings:
    """Two runs with equal settings give equal results for equal pictures; the device is not part of them.

    Attributes:
        model: SHA-256, see `model_digest`.
        class_names: Of the model; 0 is the background.
        score_threshold: Lowest score of a detection.
        nms_threshold: Largest IoU within a class.
        classes: The classes that are kept; None keeps all.
        every: Of a video each so many-th frame is predicted, from the first one on.
        version: Of the documents.
    """

    model: str
    class_names: tuple[str, ...]
    score_threshold: float
    nms_threshold: float
    classes: tuple[str, ...] | None = None
    every: int = 1
    version: int = 1

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        values = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @property
    def digest(self) -> str:
        """Short SHA-256 of `to_dict`; every document says by it which settings it was made with."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]

    def differences(self, stored: dict[str, Any]) -> list[str]:
        """In words, the settings that `stored` (as from `to_dict`) has otherwise; empty if none."""
        ours = self.to_dict()
        names = [name for name in [*ours, *(set(stored) - set(ours))] if ours.get(name) != stored.get(name)]
        return [f"{name} is {_short(stored.get(name))} there and {_short(ours.get(name))} here" for name in names]


def model_digest(path: Path, config: str = "") -> str:
    """SHA-256 of a model: of the bytes of a file, or of the names and bytes of all files of a folder.

    Args:
        path: The checkpoint or artifact. One that does not exist has a digest too: loading it says so better.
        config: JSON of the configuration, where the file does not say it itself.
    """
    digest = hashlib.sha256(config.encode())
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(b"" if file == path else file.relative_to(path).as_posix().encode() + b"\0")
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:36]}...{text[-1]}"
