"""The file that a run resumes from: named arrays and a JSON object, complete or not there at all.

HDF5 loads a flipped byte without complaint, so a digest of the content is stored too. The arrays lie in one group
under numbers, because names of variables contain slashes, which HDF5 takes for groups.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maskrcnn.checkpoints.h5_open import open_h5
from maskrcnn.checkpoints.h5_write import writing_h5
from maskrcnn.errors import CheckpointFormatError, CheckpointNotFoundError

FORMAT = 2
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class State:
    """Arrays by "<kind>/<name>", and facts as JSON values."""

    arrays: Mapping[str, Array]
    facts: Mapping[str, Any]

    def part(self, kind: str) -> dict[str, Array]:
        """Return the arrays of one kind by name."""
        prefix = f"{kind}/"
        return {key.removeprefix(prefix): array for key, array in self.arrays.items() if key.startswith(prefix)}

    def digest(self) -> str:
        """Return the SHA-256 of the content, which the file holds too."""
        return _digest(self.arrays, self.facts_text())

    def facts_text(self) -> str:
        """Return the facts and the format as JSON."""
        return json.dumps({**self.facts, "format": FORMAT}, sort_keys=True)


def save_state(path: str | Path, state: State) -> None:
    """Write a state atomically, replacing the existing file."""
    with writing_h5(path, overwrite=True) as file:
        group = file.create_group("arrays")
        for number, array in enumerate(state.arrays.values()):
            group.create_dataset(str(number), data=array)
        # HDF5 datasets, because an attribute holds 64 kB at most.
        file["names"], file["facts"] = json.dumps(list(state.arrays)), state.facts_text()
        file["sha256"] = state.digest()


def load_state(path: str | Path) -> State:
    """Read what `save_state` wrote.

    Raises:
        CheckpointNotFoundError: There is no such file.
        CheckpointFormatError: The file is damaged, not a state, or of another format.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointNotFoundError(f"there is no saved training state at {path}")
    try:
        with open_h5(path) as content:
            names, facts, expected = (content.texts[name] for name in ("names", "facts", "sha256"))
            arrays = {name: content.arrays[f"arrays/{i}"].read() for i, name in enumerate(json.loads(names))}
    except (LookupError, TypeError, ValueError) as error:  # `CheckpointFormatError` is a ValueError
        raise CheckpointFormatError(
            f"{path} is damaged or is not a training state: start a new run from its last.weights.h5 (init) in "
            "another folder"
        ) from error
    if expected != _digest(arrays, facts):
        raise CheckpointFormatError(f"{path} is damaged: its content does not match the digest stored with it")
    values = json.loads(facts)
    if values.get("format") != FORMAT:
        raise CheckpointFormatError(
            f"{path} has format {values.get('format')}, and this version reads {FORMAT}: start a new run from its "
            "last.weights.h5 (init) in another folder"
        )
    return State(arrays, values)


def _digest(arrays: Mapping[str, Array], facts: str) -> str:
    digest = hashlib.sha256(facts.encode())
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
