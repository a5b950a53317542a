"""Turn an artifact with deterministic weights into a file of a few hundred kilobytes, for `gpu.py` elsewhere.

    python -m benchmarks.skeleton r50.onnx r50-fp16.onnx -o DIR

Every large weight is a kernel of `benchmarks.seeded_weights`, laid out anew, multiplied by its batch norm's factor and
rounded, perhaps to half precision. So it is replaced by how it came about, and comes about again bit for bit: found by
comparing values, not names, and proven before the skeleton is written. A trained model's weights have no such recipe.
"""

import argparse
import hashlib
import io
import json
import math
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks import gpu
from benchmarks.seeded_weights import seeded_weight
from maskrcnn import MaskRCNN
from maskrcnn.checkpoints.matterport_h5 import group_of
from maskrcnn.checkpoints.named_weights import named_variables
from maskrcnn.configuration.model import Config
from runtime.artifact import Metadata
from runtime.artifact_files.onnx_cut import CutModel
from runtime.artifact_files.onnx_file import METADATA_KEY, read_sealed
from runtime.atomic import atomic_write
from runtime.errors import ArtifactError, RuntimeLibraryError

LARGE = 4096  # elements; what is smaller stays as it is
MOST_BYTES = 5_000_000  # of a skeleton
# Axes of a Keras kernel in the graph's order. Convolutions: [height, width, in, out] becomes [out, in, height, width].
# Transposed ones: [height, width, out, in] becomes [out, height, width, in]. Dense ones stay, or are turned.
_LAYOUTS = {4: ((3, 2, 0, 1), (2, 0, 1, 3)), 2: ((0, 1), (1, 0))}
_TRUNK = ("rpn_probs", "rpn_deltas")  # the borders that end it


def write_skeleton(artifact: Path, output: Path, trunk: bool = False) -> dict[str, int]:
    """Write the skeleton of an artifact, replacing what is there.

    Args:
        artifact: A sealed `.onnx` file of a model filled by `seed_weights` with seed 0.
        output: The `.npz` file.
        trunk: Only what comes before the proposals: backbone, pyramid and the RPN's heads.

    Returns:
        `weights` that are computed anew, and the `bytes` written.

    Raises:
        ArtifactError: The artifact cannot be used, or its weights are not deterministic ones.
        OutputError: The file cannot be written.
    """
    metadata = Metadata.from_json(read_sealed(artifact), str(artifact))
    model = onnx.load(artifact)
    if trunk:
        outputs = [metadata.borders[name]["tensor"] for name in _TRUNK]
        model = onnx.load_from_string(CutModel(artifact.read_bytes()).part({}, outputs))
        onnx.helper.set_model_props(model, {METADATA_KEY: metadata.to_json()})
    recipes = Recipes(Config.from_dict(metadata.config))
    entries, digest = [], hashlib.sha256()
    for tensor in list(model.graph.initializer):
        entry = recipes.find(tensor.name, numpy_helper.to_array(tensor))
        if entry is not None:
            entries.append(entry)
            digest.update(numpy_helper.to_array(tensor).tobytes())
            model.graph.initializer.remove(tensor)
    recipe = json.dumps({"tensors": entries, "sha256": digest.hexdigest()}).encode()
    content = io.BytesIO()
    arrays = {"graph": model.SerializeToString(), "recipe": recipe}
    packed = {name: np.frombuffer(value, np.uint8) for name, value in arrays.items()}
    np.savez_compressed(content, **packed, factors=np.array(recipes.factors, np.float32))
    size = len(content.getvalue())
    if size > MOST_BYTES:
        raise ArtifactError(
            f"{artifact} leaves {size} bytes, more than {MOST_BYTES}: its weights are not those of 'seed_weights' "
            "with seed 0"
        )
    with atomic_write(output, overwrite=True) as path:
        path.write_bytes(content.getvalue())
    return {"weights": len(entries), "bytes": size}


class Recipes:
    """Finds out how weights came about.

    Attributes:
        factors: Of all rows of all tensors found so far; recipes hold ranges of it.
    """

    def __init__(self, config: Config) -> None:
        variables = named_variables(MaskRCNN(config))
        self._shapes = {key: tuple(v.shape) for key, v in variables.items() if key.endswith("/kernel")}
        self._kernels: dict[str, np.ndarray] = {}
        self.factors: list[float] = []

    def find(self, name: str, wanted: np.ndarray) -> dict[str, Any] | None:
        """The recipe of a tensor that `gpu.weight` makes exactly; None if it is small or there is none."""
        if wanted.size < LARGE or wanted.dtype not in (np.float32, np.float16):
            return None
        for key, layout, kernel in self._candidates(wanted):
            entry = {"name": name, "dims": wanted.shape, "dtype": wanted.dtype.name, "layout": layout}
            entry |= self._origin(key) | {"factors": (len(self.factors), len(self.factors))}
            more: list[float] = []
            if not np.array_equal(kernel.astype(wanted.dtype), wanted.reshape(kernel.shape)):
                more = row_factors(kernel, wanted.reshape(kernel.shape)).tolist()
                entry["factors"] = (len(self.factors), len(self.factors) + len(more))
            if np.array_equal(gpu.weight(entry, np.array(self.factors + more, np.float32)), wanted):
                self.factors += more
                return entry
        return None

    def _candidates(self, wanted: np.ndarray) -> Iterator[tuple[str, tuple[int, ...], np.ndarray]]:
        """Kernels and layouts whose first row points the same way; kernels as [rows, anything] float32."""
        rows = wanted.reshape(len(wanted), -1)
        for key, shape in self._shapes.items():
            if math.prod(shape) != wanted.size:
                continue
            for layout in _LAYOUTS[len(shape)]:
                kernel = self._kernel(key).transpose(layout).reshape(rows.shape)
                if abs(np.corrcoef(kernel[0], rows[0])[0, 1]) > 0.999:
                    yield key, layout, kernel

    def _kernel(self, key: str) -> np.ndarray:
        if key not in self._kernels:
            self._kernels[key] = seeded_weight(_stream_name(key), self._shapes[key], 0)
        return self._kernels[key]

    def _origin(self, key: str) -> dict[str, Any]:
        """Stream, shape, and the way from integers to the kernel, told apart by trying."""
        shape, kernel = self._shapes[key], self._kernel(key)
        inputs = ((3,), tuple(range(len(shape) - 1)))  # of a transposed convolution, and of all else
        for centred, fan_in in ((True, inputs[1]), (True, inputs[0]), (False, inputs[1])):
            entry = {"stream": zlib.crc32(_stream_name(key).encode()), "shape": shape, "fan_in": fan_in}
            entry |= {"centred": centred}
            if max(fan_in) < len(shape):
                base = gpu.kernel_base(entry)
                entry["limit"] = float(scales(base.reshape(1, -1), kernel.reshape(1, -1))[0])
                if np.array_equal((base * entry["limit"]).astype(np.float32), kernel):
                    return entry
        raise AssertionError(f"{key} is not made as seeded_weights.py makes kernels")


def scales(kernel: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Per row the middle of all factors that make `wanted`, once rounded to its type.

    Args:
        kernel: float [R, N].
        wanted: float16 or float32 [R, N].

    Returns:
        float64 [R].
    """
    # Every element allows the factors whose product is rounded to it.
    near = wanted.astype(np.float64)
    sides = [np.nextafter(wanted, wanted.dtype.type(side)).astype(np.float64) for side in (-np.inf, np.inf)]
    with np.errstate(divide="ignore", invalid="ignore"):
        bounds = np.sort([(near + side) / 2 / kernel for side in sides], axis=0)
    return (np.nanmax(bounds[0], axis=1) + np.nanmin(bounds[1], axis=1)) / 2


def row_factors(kernel: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Per row the float32 near the middle that makes `wanted`.

    Half precision was rounded twice, so the middle itself may miss a tie; few float32 numbers are near it.
    """
    factors = scales(kernel, wanted).astype(np.float32)
    open_rows = np.arange(len(factors))
    for step in sorted(range(-8, 9), key=abs):
        tried = factors[open_rows] + step * np.spacing(factors[open_rows])
        made = (kernel[open_rows].astype(np.float64) * tried[:, None]).astype(np.float32).astype(wanted.dtype)
        fits = (made == wanted[open_rows]).all(axis=1)
        factors[open_rows[fits]] = tried[fits]
        open_rows = open_rows[~fits]
        if not len(open_rows):
            break
    return factors


def _stream_name(key: str) -> str:
    return f"{group_of(key.split('/', 1)[0])}/{key}:0"


def main() -> int:
    """Parse, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path(), help="folder")
    parser.add_argument("--trunk", action="store_true", help="only what comes before the proposals")
    given = parser.parse_args()
    for artifact in given.artifacts:
        output = given.output / f"{artifact.stem}{'-trunk' if given.trunk else ''}.npz"
        try:
            facts = write_skeleton(artifact, output, given.trunk)
        except (RuntimeLibraryError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        print(f"{output}: {facts['weights']} weights will be computed, {facts['bytes']} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
