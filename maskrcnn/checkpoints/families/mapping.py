"""Convert the weights of another program to ours and back, by a table of layers.

Both kinds of convolution and fully connected layers have kernels [O, I, h, w] (or [O, I * h * w]; transposed ones
[I, O, h, w]) in PyTorch, and [h, w, I, O] (transposed ones [h, w, O, I]) here, so one transposition serves all.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskrcnn.backbone import Block, residual_blocks
from maskrcnn.checkpoints.families.recognize import weights_of
from maskrcnn.checkpoints.matterport_h5 import Arrays
from maskrcnn.checkpoints.named_weights import HEAD_LAYERS, LoadReport, get_arrays, named_variables, set_arrays
from maskrcnn.configuration.model import ModelConfig
from maskrcnn.errors import CheckpointMismatchError
from maskrcnn.model import MaskRCNN

State = Mapping[str, NDArray[Any]]
# From the number of our outputs to, for each of them, the index of theirs; -1 where they have none and ours is zero.
Order = Callable[[int], NDArray[np.intp]]

_LISTED = 3  # names in a message
_VARIABLES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


class Row(NamedTuple):
    """One of our layers and its names in the family.

    Attributes:
        layer: Our name.
        names: Names of their module, of which a file has one; the first is written.
        outputs: Order of the outputs; None if it is ours.
        linear: Whether their layer is fully connected; ours may be a convolution that covers its input.
        bgr: Whether their input channels are in the opposite order.
    """

    layer: str
    names: tuple[str, ...]
    outputs: Order | None = None
    linear: bool = False
    bgr: bool = False


class Table(NamedTuple):
    """The layers of a family's Mask R-CNN, and its name in messages."""

    title: str
    rows: tuple[Row, ...]


def load_state(
    model: MaskRCNN,
    state: State,
    table: Table,
    source: str,
    exclude_heads: bool = False,
    exclude: Collection[str] = (),
) -> LoadReport:
    """Load the weights of another program into a model: all of them, or none if anything does not fit.

    Args:
        model: Changed in place.
        state: Arrays by their names.
        table: Of the family, made with the configuration of the model.
        source: Where the arrays come from, for messages.
        exclude_heads: Skip the layers that depend on the number of classes.
        exclude: Layers of the model that the family does not have, and that are skipped.

    Raises:
        CheckpointMismatchError: An array is missing, unexpected, of another shape, or not finite, or the model has a
            layer that the family does not have.
    """
    shapes = {
        key: tuple(variable.shape)
        for key, variable in named_variables(model).items()
        if key.split("/")[0] not in exclude
    }
    arrays = to_arrays(state, table, shapes, source, HEAD_LAYERS if exclude_heads else ())
    return set_arrays(model, arrays, source, exclude_heads, exclude=exclude)


def state_of(model: MaskRCNN, table: Table) -> dict[str, NDArray[np.float32]]:
    """Return the weights of a model as arrays of another program, by its names.

    Raises:
        CheckpointMismatchError: The model has a layer that the family does not have.
    """
    return from_arrays(get_arrays(model), table)


def to_arrays(
    state: State, table: Table, shapes: Mapping[str, tuple[int, ...]], source: str, skipped: Collection[str] = ()
) -> Arrays:
    """Return our arrays, by "<layer>/<variable>", from theirs.

    Args:
        state: Their arrays.
        table: Of the family.
        shapes: Shapes of our arrays.
        source: Where theirs come from, for messages.
        skipped: Our layers that are left out, whatever the state has for them.

    Raises:
        CheckpointMismatchError: As for `load_state`, except for values that are not finite.
    """
    variables = _by_layer(shapes, table)
    arrays: Arrays = {}
    used: set[str] = set()
    missing: list[str] = []
    wrong: list[tuple[str, tuple[int, ...], str]] = []
    for row in table.rows:
        module = next((name for name in row.names if f"{name}.weight" in state), row.names[0])
        for ours in variables.get(row.layer, ()):
            key = f"{module}.{_VARIABLES[ours.split('/')[1]]}"
            used.add(key)
            if row.layer in skipped:
                continue
            expected = _their_shape(row, shapes[ours])
            if key not in state:
                missing.append(key)
            elif state[key].shape != expected:
                wrong.append((key, expected, row.layer))
            else:
                arrays[ours] = _to_ours(row, state[key], shapes[ours])
    unexpected = [key for key in weights_of(state) if key not in used]
    if missing or unexpected:
        raise CheckpointMismatchError(_names_message(source, table, missing, unexpected))
    if wrong:
        raise CheckpointMismatchError(_shapes_message(source, state, wrong))
    return arrays


def from_arrays(arrays: Arrays, table: Table) -> dict[str, NDArray[np.float32]]:
    """Return their arrays from ours; the reverse of `to_arrays`.

    Raises:
        CheckpointMismatchError: We have a layer that the family does not have.
    """
    variables = _by_layer({key: array.shape for key, array in arrays.items()}, table)
    return {
        f"{row.names[0]}.{_VARIABLES[ours.split('/')[1]]}": _to_theirs(row, arrays[ours])
        for row in table.rows
        for ours in variables.get(row.layer, ())
    }


def block_rows(config: ModelConfig, names: Callable[[Block, str], tuple[str, str]]) -> list[Row]:
    """Return the rows of the residual blocks.

    Args:
        config: Of a built-in backbone.
        names: From a block and the index of its convolution, "1" to "3" or "shortcut", to the names of the convolution
            and of its batch normalization.
    """
    rows = []
    for block in residual_blocks(config):
        branches = {branch: str(number) for number, branch in enumerate(block.branches, 1)}
        branches |= {"1": "shortcut"} if block.projected else {}
        for branch, number in branches.items():
            convolution, norm = names(block, number)
            rows.append(Row(f"res{block.name}_branch{branch}", (convolution,)))
            rows.append(Row(f"bn{block.name}_branch{branch}", (norm,)))
    return rows


def swapped_deltas(count: int) -> NDArray[np.intp]:
    """Order of dy, dx, dh, dw where theirs is dx, dy, dw, dh."""
    return np.arange(count).reshape(-1, 4)[:, [1, 0, 3, 2]].ravel()


def background_last(count: int) -> NDArray[np.intp]:
    """Order of classes whose background is first here and last there."""
    return np.roll(np.arange(count), 1)


def no_background(count: int) -> NDArray[np.intp]:
    """Order of classes where they have none for the background."""
    return np.arange(count) - 1


def swapped_deltas_without_background(count: int) -> NDArray[np.intp]:
    """Order of the deltas of all classes, where they have none for the background."""
    return np.concatenate([np.full(4, -1), swapped_deltas(count - 4)])


def _by_layer(shapes: Mapping[str, tuple[int, ...]], table: Table) -> dict[str, list[str]]:
    """Return the names of our arrays by layer; the table must have all layers."""
    variables: dict[str, list[str]] = {}
    for key in shapes:
        variables.setdefault(key.split("/")[0], []).append(key)
    known = {row.layer for row in table.rows}
    foreign = [layer for layer in variables if layer not in known]
    if foreign:
        raise CheckpointMismatchError(
            f"the network has the layer {foreign[0]!r}, which a Mask R-CNN of {table.title} does not have "
            f"({len(foreign)} such layers): check 'model' in the configuration"
        )
    absent = [row.layer for row in table.rows if row.layer not in variables]
    if absent:
        raise CheckpointMismatchError(
            f"the network lacks the layer {absent[0]!r} of a Mask R-CNN of {table.title} ({len(absent)} such layers): "
            "check 'model' in the configuration"
        )
    return variables


def _their_shape(row: Row, ours: tuple[int, ...]) -> tuple[int, ...]:
    shape = ours[:1] if len(ours) == 1 else (ours[-1], ours[-2], *ours[:-2])
    if row.outputs is not None:
        shape = (int((row.outputs(shape[0]) >= 0).sum()), *shape[1:])
    return (shape[0], int(np.prod(shape[1:]))) if row.linear and len(shape) > 1 else shape


def _to_ours(row: Row, array: NDArray[Any], ours: tuple[int, ...]) -> NDArray[np.float32]:
    array = np.asarray(array, np.float32)
    if row.outputs is not None:
        order = row.outputs(ours[-1])
        chosen = array[np.maximum(order, 0)]
        chosen[order < 0] = 0
        array = chosen
    if len(ours) == 1:
        return np.array(array)
    array = array.reshape(len(array), ours[-2], *ours[:-2])  # [O, I, h, w], or [O, I]
    if row.bgr:
        array = array[:, ::-1]
    return np.ascontiguousarray(array.transpose(_KERNEL_AXES[array.ndim]))


def _to_theirs(row: Row, array: NDArray[np.float32]) -> NDArray[np.float32]:
    shape = _their_shape(row, array.shape)
    if array.ndim > 1:
        array = array.transpose(_THEIR_AXES[array.ndim])
    if row.bgr and array.ndim > 1:
        array = array[:, ::-1]
    if row.outputs is not None:
        order = row.outputs(len(array))
        array = array[np.argsort(order)[np.count_nonzero(order < 0) :]]
    return np.array(array.reshape(shape), order="C")


_KERNEL_AXES = {2: (1, 0), 4: (2, 3, 1, 0)}
_THEIR_AXES = {2: (1, 0), 4: (3, 2, 0, 1)}


def _names_message(source: str, table: Table, missing: list[str], unexpected: list[str]) -> str:
    parts = []
    if missing:
        parts.append(f"it lacks {_listed(missing)}")
    if unexpected:
        parts.append(f"it has {_listed(unexpected)}, which the network does not have")
    return (
        f"{source} is not the Mask R-CNN of {table.title} that the configuration describes: {', and '.join(parts)}; "
        "check 'model' in the configuration"
    )


def _listed(names: list[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def _shapes_message(source: str, state: State, wrong: list[tuple[str, tuple[int, ...], str]]) -> str:
    key, expected, _ = wrong[0]
    differ = f"{key} is {list(state[key].shape)}, expected {list(expected)}"
    if all(layer in HEAD_LAYERS for _, _, layer in wrong):
        return (
            f"{source} has another number of classes than the configuration ({differ}): use a configuration with as "
            "many, or skip the heads with --exclude-heads (exclude_heads=True)"
        )
    return f"{source} does not fit the configuration: {differ} ({len(wrong)} arrays differ)"
