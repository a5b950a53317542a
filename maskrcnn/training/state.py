"""The file that a run goes on from: arrays by name and a JSON object, whole or not there at all.

HDF5 would load a flipped byte without a word, so a digest of everything goes with it. The arrays lie in one group
under their number, because names of variables hold slashes, which HDF5 takes for folders.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from maskrcnn.checkpoints.h5_walk import check_structure
from maskrcnn.checkpoints.h5_write import writing_h5
from maskrcnn.errors import CheckpointFormatError, CheckpointNotFoundError

FORMAT = 1
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class State:
    """Everything that a run needs to go on.

    Attributes:
        arrays: By "<what>/<name>".
        facts: JSON values.
    """

    arrays: Mapping[str, Array]
    facts: Mapping[str, Any]

    def part(self, what: str) -> dict[str, Array]:
        """Arrays of one kind by name."""
        prefix = f"{what}/"
        return {key.removeprefix(prefix): array for key, array in self.arrays.items() if key.startswith(prefix)}


def save_state(path: str | Path, state: State) -> None:
    """Write a state atomically, over the one that stands there.

    Raises:
        OutputError: It cannot be written.
    """
    facts = json.dumps({**state.facts, "format": FORMAT}, sort_keys=True)
    with writing_h5(path, overwrite=True) as file:
        group = file.create_group("arrays")
        for number, array in enumerate(state.arrays.values()):
            group.create_dataset(str(number), data=array)
        # Data sets, because an attribute holds 64 kB at most.
        file["names"], file["facts"] = json.dumps(list(state.arrays)), facts
        file["sha256"] = _digest(state.arrays, facts)


def load_state(path: str | Path) -> State:
    """Read what `save_state` wrote.

    Raises:
        CheckpointNotFoundError: No such file.
        CheckpointFormatError: Not such a file, damaged, or written by a later version.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointNotFoundError(f"there is no state of a run at {path}")
    try:
        with h5py.File(path, "r") as file:
            check_structure(file, path)
            names, facts, expected = (file[name][()].decode() for name in ("names", "facts", "sha256"))
            arrays = {name: _read(file["arrays"], str(number)) for number, name in enumerate(json.loads(names))}
    except (OSError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointFormatError(
            f"{path} is damaged, or no state of a run: start again from its last.weights.h5 (init) in another folder"
        ) from error
    if expected != _digest(arrays, facts):
        raise CheckpointFormatError(f"{path} is damaged: its content differs from the digest stored with it")
    values = json.loads(facts)
    if values.get("format") != FORMAT:
        raise CheckpointFormatError(f"{path} has format {values.get('format')}: this version reads {FORMAT}")
    return State(arrays, values)


def _read(group: h5py.Group, name: str) -> Array:
    if not isinstance(group.get(name, getlink=True), h5py.HardLink) or group[name].external:
        raise ValueError(f"array {name} lies outside the file")
    return np.asarray(group[name][()])


def _digest(arrays: Mapping[str, Array], facts: str) -> str:
    digest = hashlib.sha256(facts.encode())
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
