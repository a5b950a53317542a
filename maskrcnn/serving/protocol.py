"""The Open Inference Protocol V2 over REST with binary tensors: bytes to a request, and results to bytes.

A body is JSON, followed by the binary tensors in the order of the JSON. The header `Inference-Header-Content-Length`
says how long the JSON is. Elements of BYTES tensors follow their lengths, which are 4 bytes, little-endian.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from maskrcnn.serving.errors import RequestError
from runtime.detections import Detections

HEADER_LENGTH = "Inference-Header-Content-Length"
ERROR = "error"
_MOST_JSON = 2**20  # bytes of the JSON of a request: images are not in it
_LENGTH = struct.Struct("<I")
_INPUTS: dict[str, tuple[str, list[int]]] = {"images": ("BYTES", [-1]), "score_threshold": ("FP32", [1])}
# Per image one row, then per detection one row, for all images one after the other.
_OUTPUTS: dict[str, tuple[str, list[int]]] = {
    "num_detections": ("INT32", [-1]),
    "image_sizes": ("INT32", [-1, 2]),
    "boxes": ("FP32", [-1, 4]),
    "scores": ("FP32", [-1]),
    "class_ids": ("INT32", [-1]),
    "names": ("BYTES", [-1]),
    "rles": ("BYTES", [-1]),
    ERROR: ("BYTES", [-1]),
}
# What a part of a request may have; anything else is refused, since a client that asks for it counts on it.
_FIELDS = ("id", "inputs", "outputs", "parameters")
_INPUT_FIELDS = ("name", "datatype", "shape", "data", "parameters")
_OUTPUT_FIELDS = ("name", "parameters")
_LONGEST_TIMEOUT = 10**12  # microseconds
_DTYPES = {"INT32": np.dtype("<i4"), "FP32": np.dtype("<f4")}
Tensor = npt.NDArray[Any] | list[bytes]


@dataclass(frozen=True)
class InferRequest:
    """What a client asks for.

    Attributes:
        images: Encoded images, views of the body.
        score_threshold: Lowest score of returned detections; None for the model's.
        outputs: Whether each output is returned as a binary tensor, by name, in the order of the answer.
        id: What the answer carries too.
        timeout: Seconds that the client waits for the result; None for as long as the server lets it.
    """

    images: tuple[memoryview, ...]
    score_threshold: float | None
    outputs: Mapping[str, bool]
    id: str | None
    timeout: float | None


def tensors(*, partial: bool) -> dict[str, list[dict[str, Any]]]:
    """Return the inputs and outputs as the metadata of a model lists them."""
    tables = {"inputs": _INPUTS, "outputs": {name: _OUTPUTS[name] for name in _names(partial)}}
    return {
        key: [{"name": name, "datatype": kind, "shape": shape} for name, (kind, shape) in table.items()]
        for key, table in tables.items()
    }


def read_request(body: bytearray, json_length: str | None, *, most_images: int, partial: bool) -> InferRequest:
    """Read a request; everything is checked before an image is decoded.

    Args:
        body: The body.
        json_length: The header `Inference-Header-Content-Length`; None: all of the body is JSON.
        most_images: Most images.
        partial: Whether there is an output `error`.

    Raises:
        RequestError: It is malformed; the message says where, but not what was there.
    """
    head, binary = _split(body, json_length)
    _require_known(head, "the request", _FIELDS)
    parameters = _parameters(head, "the request", ("binary_data_output", "timeout"))
    found: dict[str, Any] = {}
    for place, tensor in enumerate(_list(head.get("inputs"), "inputs")):
        where = f"inputs[{place}]"
        name = _known(tensor, where, _INPUTS)
        if name in found:
            raise RequestError(f"{where}: the second {name}")
        _require_known(tensor, where, _INPUT_FIELDS)
        kind, _ = _INPUTS[name]
        if tensor.get("datatype") != kind:
            raise RequestError(f"{where}, {name}: expected datatype {kind}")
        size = _parameters(tensor, where, ("binary_data_size",)).get("binary_data_size")
        if size is not None:
            if "data" in tensor:
                raise RequestError(f"{where}, {name}: expected data or binary_data_size, not both")
            if type(size) is not int or not 0 <= size <= len(binary):
                raise RequestError(f"{where}, {name}: binary_data_size is not the length of data that follows")
            data, binary = binary[:size], binary[size:]
        else:
            data = None
        found[name] = _images(tensor, data, most_images) if name == "images" else _threshold(tensor, data)
    if len(binary):
        raise RequestError(f"{len(binary)} bytes follow the last binary tensor; expected none")
    if "images" not in found:
        raise RequestError("inputs: images is missing")
    own_id = head.get("id")
    if own_id is not None and not isinstance(own_id, str):
        raise RequestError("id: expected a string")
    binary_output = _flag(parameters, "binary_data_output", "the request", default=False)
    outputs = _outputs(head.get("outputs"), _names(partial), binary_output)
    return InferRequest(found["images"], found.get("score_threshold"), outputs, own_id, _timeout(parameters))


def _names(partial: bool) -> list[str]:
    return [name for name in _OUTPUTS if partial or name != ERROR]


def _split(body: bytearray, json_length: str | None) -> tuple[dict[str, Any], memoryview]:
    """Return the JSON of a body, and what follows it."""
    length = len(body)
    if json_length is not None:
        if not (json_length.isascii() and json_length.isdecimal() and len(json_length) < 10):
            raise RequestError(f"{HEADER_LENGTH}: expected a number of bytes")
        length = int(json_length)
    if not 0 < length <= min(len(body), _MOST_JSON):
        where = "the body" if json_length is None else HEADER_LENGTH
        raise RequestError(f"{where}: expected 1 to {min(len(body), _MOST_JSON)} bytes of JSON in {len(body)} bytes")
    try:
        head = json.loads(body[:length].decode("utf-8"), object_pairs_hook=_object)
    except (ValueError, RecursionError):
        hint = f", or {HEADER_LENGTH}" if json_length is None else ""
        raise RequestError(f"the first {length} bytes of the body are not JSON: expected an object{hint}") from None
    if not isinstance(head, dict):
        raise RequestError("the JSON of the request: expected an object")
    return head, memoryview(body)[length:]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise RequestError("the JSON of the request: a name occurs twice in an object")
    return found


def _require_known(of: Mapping[str, Any], where: str, names: Sequence[str]) -> None:
    """Refuse what nobody would look at."""
    if not of.keys() <= set(names):
        raise RequestError(f"{where}: expected nothing but {', '.join(names)}")


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not 0 < len(value) <= len(_OUTPUTS):
        raise RequestError(f"{where}: expected a list of 1 to {len(_OUTPUTS)} tensors")
    return value


def _known(tensor: Any, where: str, names: Sequence[str] | Mapping[str, Any]) -> str:
    """Return the name of a tensor that is one of these."""
    name = tensor.get("name") if isinstance(tensor, dict) else None
    if not isinstance(name, str) or name not in names:
        raise RequestError(f"{where}: expected the name of one of {', '.join(names)}")
    return name


def _parameters(of: Mapping[str, Any], where: str, names: Sequence[str]) -> dict[str, Any]:
    parameters = of.get("parameters", {})
    if not isinstance(parameters, dict):
        raise RequestError(f"{where}: expected parameters to be an object")
    _require_known(parameters, f"{where}, parameters", names)
    return parameters


def _timeout(parameters: Mapping[str, Any]) -> float | None:
    """Return the seconds of `timeout`, which is in microseconds; 0 is none, as in Triton."""
    value = parameters.get("timeout", 0)
    if type(value) is not int or value < 0:
        raise RequestError("the request, timeout: expected microseconds, an integer of at least 0")
    return min(value, _LONGEST_TIMEOUT) / 1e6 or None


def _images(tensor: Mapping[str, Any], data: memoryview | None, most: int) -> tuple[memoryview, ...]:
    shape = tensor.get("shape")
    if not isinstance(shape, list) or len(shape) != 1 or type(shape[0]) is not int or not 1 <= shape[0] <= most:
        raise RequestError(f"images: expected the shape [B], B from 1 to {most}")
    if data is None:
        raise RequestError("images: expected binary data, with binary_data_size and no data in the JSON")
    images: list[memoryview] = []
    while len(data) and len(images) < shape[0]:
        length = _LENGTH.unpack_from(data)[0] if len(data) >= _LENGTH.size else None
        if length is None or length > len(data) - _LENGTH.size:
            raise RequestError(f"images[{len(images)}]: its data is cut off, or its length wrong")
        images.append(data[_LENGTH.size : _LENGTH.size + length])
        data = data[_LENGTH.size + length :]
    if len(data) or len(images) != shape[0]:
        raise RequestError(f"images: expected as much data as {shape[0]} lengths and elements take")
    return tuple(images)


def _threshold(tensor: Mapping[str, Any], data: memoryview | None) -> float:
    value = tensor.get("data") if data is None else None
    if data is not None and len(data) == 4:
        value = [struct.unpack("<f", data)[0]]
    if (
        tensor.get("shape") != [1]
        or not isinstance(value, list)
        or len(value) != 1
        or type(value[0]) not in (int, float)
    ):
        raise RequestError("score_threshold: expected the shape [1] and one number")
    number = value[0]
    if not 0 <= number <= 1:  # also not a number
        raise RequestError("score_threshold: expected a number from 0 to 1")
    return float(np.float32(number))


def _outputs(asked: Any, names: Sequence[str], binary: bool) -> dict[str, bool]:
    if asked is None or asked == []:
        return dict.fromkeys(names, binary)
    found: dict[str, bool] = {}
    for place, tensor in enumerate(_list(asked, "outputs")):
        where = f"outputs[{place}]"
        name = _known(tensor, where, names)
        if name in found:
            raise RequestError(f"{where}: the second {name}")
        _require_known(tensor, where, _OUTPUT_FIELDS)
        found[name] = _flag(_parameters(tensor, where, ("binary_data",)), "binary_data", where, default=binary)
    return found


def _flag(parameters: Mapping[str, Any], name: str, where: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise RequestError(f"{where}: expected {name} to be true or false")
    return value


def image_tensors(found: Detections, outputs: Mapping[str, bool]) -> dict[str, Tensor]:
    """Return the part of the outputs that one image gives; masks are computed only if they are asked for."""
    return {
        "num_detections": np.array([len(found)]),
        "image_sizes": np.array([found.image_size]),
        "boxes": found.boxes,
        "scores": found.scores,
        "class_ids": found.class_ids,
        "names": [name.encode("utf-8", "backslashreplace") for name in found.names],
        "rles": [str(rle["counts"]).encode() for rle in found.rles] if "rles" in outputs else [],
        ERROR: [b""],
    }


def failed_tensors(message: str) -> dict[str, Tensor]:
    """Return the part of the outputs that an image gives that cannot be used: no detections, of a size of 0 x 0."""
    rows: dict[str, Tensor] = {name: np.zeros([0, *shape[1:]]) for name, (_, shape) in _OUTPUTS.items()}
    return rows | {"num_detections": np.array([0]), "image_sizes": np.array([[0, 0]]), ERROR: [message.encode()]}


def write_response(
    parts: Sequence[Mapping[str, Tensor]], outputs: Mapping[str, bool], head: Mapping[str, Any]
) -> tuple[bytes, dict[str, str]]:
    """Return the body and headers of an answer.

    Args:
        parts: Of each image.
        outputs: Of the request.
        head: Further fields of the JSON.
    """
    described, blocks = [], []
    for name, binary in outputs.items():
        kind, _ = _OUTPUTS[name]
        rows = [part[name] for part in parts]
        tensor: dict[str, Any] = {"name": name, "datatype": kind}
        if kind == "BYTES":
            elements = [element for own in rows for element in own]
            tensor["shape"] = [len(elements)]
            block = b"".join(_LENGTH.pack(len(element)) + element for element in elements) if binary else b""
            data: Any = [element.decode() for element in elements] if not binary else None
        else:
            array = np.concatenate([np.asarray(own, _DTYPES[kind]) for own in rows])
            tensor["shape"] = list(array.shape)
            block, data = (array.tobytes(), None) if binary else (b"", array.ravel().tolist())
        if binary:
            tensor["parameters"] = {"binary_data_size": len(block)}
            blocks.append(block)
        else:
            tensor["data"] = data
        described.append(tensor)
    text = json.dumps({**head, "outputs": described}).encode()
    if not blocks:
        return text, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(text))}
    return b"".join([text, *blocks]), headers
