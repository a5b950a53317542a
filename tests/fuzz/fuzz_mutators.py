"""Changes to JSON and to protocol buffers that leave them whole, so that fuzzing comes past the parser."""

import copy
import json
import random

from runtime.artifact_files.protobuf import field, read_fields, varint_field
from runtime.errors import ArtifactError

_PLAIN = 0.15  # share of changes that know nothing of the format
_VALUES = (
    None, True, False, 0, 1, -1, 2, 3, 7, 10, 40, 60, 64, 255, 0.5, -0.0, 1e-9, 1e20, 1e308, -1e308, 2**31, 2**53,
    2**63, -(2**63), 10**400, float("nan"), float("inf"), "", "0", "0P", "BG", "a.png", "../a.png", "..", "/",
    "\x1b[2J", "a\nb", "\u2028", "\ud800", "\0", "polygon", "rect", "circle", "ellipse", "mask", [], {}, [[]], [{}],
    [0, 40, 2360], [40, 60], [10, 10, 20, 10, 20, 20], "onnx", "square", "crop", "none", "fp16", "cuda",
)  # fmt: skip
_NAMES = (
    b"", b"ai.onnx", b"ai.onnx.ml", b"com.microsoft", b"Add", b"EPContext", b"location", b"/etc/hostname",
    b"WriteFile", b"PyFunc", b"SaveV2", b"RestoreV2", b"VarHandleOp", b"PartitionedCall", b"api_implements", b"func",
    b"save", b"serve", b"\0", b"\1", b"\xff",
)  # fmt: skip
_NUMBERS = (0, 1, 2, 127, 128, 2**31, 2**32, 2**63, 2**64 - 1)
_FIELDS = (*range(1, 27), 100, 2**29 - 1)
_DEEPEST = 1500  # lists in lists: more than Python's JSON reads


def json_mutator(plain):
    """A mutator of JSON documents; `plain(data, limit)` changes what is none."""

    def mutate(data, limit, seed):
        rng = random.Random(seed)
        if rng.random() < _PLAIN:
            return plain(data, limit)
        try:
            content = json.loads(data)
            for _ in range(rng.choice((1, 1, 1, 2, 3))):
                content = _edit_json(content, rng)
            changed = json.dumps(content, ensure_ascii=rng.random() < 0.5, separators=(",", ":"))
        except (ValueError, RecursionError):  # no JSON, a number too long to write, or lists too deep in each other
            return plain(data, limit)
        if rng.random() < 0.02:  # put in as text: nothing that writes JSON goes so deep
            depth = rng.randrange(_DEEPEST)
            changed = changed.replace("null", "[" * depth + "]" * depth, 1)
        encoded = changed.encode(errors="surrogatepass")
        return encoded if len(encoded) <= limit else plain(data, limit)

    return mutate


def _edit_json(content, rng):
    """Another document, that differs at one place; the given one may be spoiled."""
    places = list(_places(content))
    if not places:
        return rng.choice(_VALUES)
    node, key = rng.choice(places)
    other_node, other_key = rng.choice(places)
    match rng.randrange(7):
        case 0:
            del node[key]
        case 1 | 2:
            node[key] = _value(node[key], rng)
        case 3:
            node[key] = copy.deepcopy(other_node[other_key])
        case 4:
            _add(node, key, copy.deepcopy(other_node[other_key]), rng)
        case 5:
            _add(node, key, _value(node[key], rng), rng)
        case 6:
            wraps = ([node[key]], {"": node[key]}, node[key] if isinstance(node[key], str) else json.dumps(node[key]))
            node[key] = rng.choice(wraps)
    return content


def _places(content):
    waiting = [content]
    while waiting:
        node = waiting.pop()
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            yield node, key
            waiting.append(node[key])


def _value(old, rng):
    if isinstance(old, int | float) and rng.random() < 0.6:
        steps = (1, -1, 0.5, 10, 1000, -100)
        return rng.choice((old + rng.choice(steps) if abs(old) < 1e300 else 1, -old, not old))
    if isinstance(old, str) and old and rng.random() < 0.6:
        at = rng.randrange(len(old))
        return old[:at] + rng.choice(("", "\n", "\x1b", "x", "..", "0", "\u00e9", old)) + old[at + rng.randrange(2) :]
    return copy.deepcopy(rng.choice(_VALUES))


def _add(node, key, value, rng):
    if isinstance(node, list):
        node.insert(key, value)
    else:
        node[rng.choice(("x", "", "id", f"{key}x", str(key).upper(), "\x1b[2J"))] = value


def wire_mutator(plain):
    """A mutator of encoded messages; lengths around a change are mended."""

    def mutate(data, limit, seed):
        rng = random.Random(seed)
        if rng.random() < _PLAIN:
            return plain(data, limit)
        for _ in range(rng.choice((1, 1, 2, 4))):
            data = _edit_message(data, rng, plain)
        return data if len(data) <= limit else plain(data[:limit], limit)

    return mutate


def _fields(data):
    """(number, content, whole) of each field, as bytes; None if it is no message."""
    try:
        return [(number, bytes(content), bytes(whole)) for number, content, whole in read_fields(data)]
    except ArtifactError:
        return None


def _edit_message(data, rng, plain):
    fields = _fields(data)
    if not fields:
        return field(rng.choice(_FIELDS), rng.choice(_NAMES)) if rng.random() < 0.7 else plain(bytes(data), 64)
    at = rng.randrange(len(fields))
    number, content, whole = fields[at]
    parts = [part for _, _, part in fields]
    has_length = len(whole) > len(content) + 1 and whole.endswith(content)
    if has_length and len(content) > 1 and rng.random() < 0.75 and _fields(content):
        parts[at] = field(number, _edit_message(content, rng, plain))
    else:
        match rng.randrange(7):
            case 0:
                del parts[at]
            case 1:
                parts.insert(at, rng.choice(parts))
            case 2:
                parts[at] = field(rng.choice(_FIELDS), content)
            case 3:
                parts[at] = field(number, rng.choice(_NAMES))
            case 4:
                parts[at] = varint_field(rng.choice((number, *_FIELDS)), rng.choice(_NUMBERS))
            case 5:
                parts.insert(at, field(rng.choice(_FIELDS), rng.choice((content, whole, *_NAMES))))
            case 6:
                parts[at] = field(number, plain(content, len(content) + 16))
    return b"".join(parts)
