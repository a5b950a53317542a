"""Metadata of an artifact: what is written is read back, and anything else is refused."""

import copy
import hashlib
import json
from contextlib import suppress
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from sample_metadata import METADATA

from runtime.artifact import INPUT_NAMES, OUTPUT_NAMES, SCHEMA_VERSIONS, Metadata, verdict_digest
from runtime.engines.versions import check_engine
from runtime.errors import ArtifactCorruptError, ArtifactError, ArtifactVersionError, ImageError, InputError
from runtime.pictures.letterbox import ResizePolicy, plan_letterbox
from runtime.pictures.pixels import PLAIN
from runtime.pictures.read import MAX_PIXELS
from runtime.steps import to_detections


def changed(**changes):
    """The metadata's JSON with some values replaced, and a digest that fits the verdict in it."""
    values = json.loads(METADATA.to_json()) | changes
    return json.dumps(values | {"verdict_sha256": verdict_digest(values["verdict"])})


def without(name):
    values = json.loads(METADATA.to_json())
    del values[name]
    return json.dumps(values)


def refusal(text, kind=ArtifactCorruptError):
    with pytest.raises(ArtifactError) as refused:
        Metadata.from_json(text, "folder/model.onnx")
    assert type(refused.value) is kind
    message = str(refused.value)
    assert "folder/model.onnx" in message
    assert "\n" not in message
    return message


def test_round_trip():
    assert Metadata.from_json(METADATA.to_json(), "here") == METADATA


def test_round_trip_of_the_defaults():
    plain = replace(METADATA, opset=None, engine_minimum={}, producer={}, checkpoint={}, verdict={})
    assert Metadata.from_json(plain.to_json(), "here") == plain


def test_json_describes_every_tensor_for_readers_without_this_package():
    values = json.loads(METADATA.to_json())
    assert values["schema_version"] == 1
    assert tuple(values["inputs"]) == INPUT_NAMES
    assert tuple(values["outputs"]) == OUTPUT_NAMES
    assert values["inputs"]["images"]["shape"] == [None, None, None, 3]
    assert values["outputs"]["masks"]["shape"] == [None, 7, 28, 28]
    assert values["outputs"]["boxes"]["dtype"] == "float32"


def test_constant_thresholds_are_no_inputs():
    constant = replace(METADATA, thresholds="constants")
    assert tuple(json.loads(constant.to_json())["inputs"]) == ("images", "windows")
    assert (METADATA.lowest_score, constant.lowest_score) == (0, 0.25)


def test_tensors_are_typed_by_hand():
    fixed = replace(METADATA, input_shape=(2, 64, 128))

    def shapes(tensors):
        return {name: (tensor["dtype"], tensor["shape"]) for name, tensor in tensors.items()}

    assert shapes(fixed.inputs()) == {
        "images": ("uint8", [2, 64, 128, 3]),
        "windows": ("float32", [2, 4]),
        "score_threshold": ("float32", []),
        "nms_threshold": ("float32", []),
    }
    assert shapes(fixed.outputs()) == {
        "num_detections": ("int32", [2]),
        "boxes": ("float32", [2, 7, 4]),
        "scores": ("float32", [2, 7]),
        "class_ids": ("int32", [2, 7]),
        "masks": ("float32", [2, 7, 28, 28]),
    }
    assert "default 0.25" in fixed.inputs()["score_threshold"]["meaning"]
    assert "default 0.5" in fixed.inputs()["nms_threshold"]["meaning"]


def test_json_keeps_letters_as_they_are_and_fields_do_not_change():
    assert "\N{GREEN APPLE}" in METADATA.to_json()
    with pytest.raises(FrozenInstanceError):
        METADATA.mask_size = 14


@pytest.mark.parametrize("version", [3, 0, -1, "1", None])
def test_another_schema_version(version):
    message = refusal(changed(schema_version=version), ArtifactVersionError)
    assert str(version) in message
    assert "this package reads 1 and 2" in message


def short_side(resampling):
    return ResizePolicy("short_side", short_side=288, long_side=448, resampling=resampling)


@pytest.mark.parametrize(
    ("changes", "version", "dtype"),
    [
        ({}, 1, "uint8"),
        ({"mask_paste": "matterport", "resize": ResizePolicy("square", None, 128)}, 1, "uint8"),
        ({"mask_paste": "torchvision"}, 2, "uint8"),
        ({"mask_paste": "detectron2"}, 2, "uint8"),
        ({"resize": ResizePolicy("fit64", 64, 128)}, 2, "uint8"),
        ({"resize": short_side("float")}, 2, "float32"),
        ({"resize": short_side("pillow")}, 2, "uint8"),
        ({"resize": short_side("opencv")}, 2, "uint8"),
    ],
)
def test_the_schema_version_is_the_oldest_that_describes_the_artifact(changes, version, dtype):
    metadata = replace(METADATA, **changes)
    values = json.loads(metadata.to_json())
    assert values["schema_version"] == version
    assert values["inputs"]["images"]["dtype"] == dtype
    assert Metadata.from_json(metadata.to_json(), "here") == metadata
    known = {"mode", "min_dim", "max_dim", "min_scale"}  # to packages that read version 1 alone
    assert (set(values["resize"]) == known) is (metadata.resize.mode != "short_side")
    assert SCHEMA_VERSIONS[-1] == 2


def test_another_schema_version_is_named_even_when_its_fields_are_unknown():
    message = refusal(json.dumps({"schema_version": 9, "layout": "new"}), ArtifactVersionError)
    assert "9" in message


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "3", '"text"', "{}", "\x00", "[" * 100_000])
def test_no_metadata_at_all(text):
    assert "cannot be read" in refusal(text)


LATER = {"config", "precision", "target", "input_shape", "edits", "thresholds", "pixels"}  # older artifacts lack these


@pytest.mark.parametrize("name", sorted(set(Metadata.__dataclass_fields__) - LATER))
def test_missing_field(name):
    assert repr(name) in refusal(without(name))


def test_older_artifacts_are_read():
    usual = {"config": {}, "precision": "fp32", "target": "cpu", "input_shape": (None, None, None), "edits": ()}
    usual |= {"thresholds": "inputs", "pixels": PLAIN}
    assert set(usual) == LATER
    for name, value in usual.items():
        assert getattr(Metadata.from_json(without(name), "m.onnx"), name) == value


def test_a_fixed_shape_is_in_the_tensors():
    fixed = replace(METADATA, input_shape=(2, 64, 128), target="tensorrt")
    assert Metadata.from_json(fixed.to_json(), "here") == fixed
    assert fixed.inputs()["images"]["shape"] == [2, 64, 128, 3]
    assert fixed.inputs()["windows"]["shape"] == [2, 4]
    assert fixed.outputs()["num_detections"]["shape"] == [2]


@pytest.mark.parametrize("shape", [[], [1, 64], [1, 64, 0], [1, 64, "64"], [True, 64, 64], "abc", 3, [1, 64, 64, 3]])
def test_spoiled_shape(shape):
    assert "input_shape" in refusal(changed(input_shape=shape))


def test_missing_verdict_digest():
    assert "verdict" in refusal(without("verdict_sha256"))


@pytest.mark.parametrize(
    "verdict",
    [
        {"passed": False, "cases": [{"boxes": 1e-05, "decisions": []}], "graph": None},
        {"passed": True, "cases": [{"boxes": 2e-05, "decisions": []}], "graph": None},
        {"passed": True, "cases": [], "graph": None},
        {},
    ],
)
def test_spoiled_verdict(verdict):
    values = json.loads(METADATA.to_json())
    assert "verdict differs" in refusal(json.dumps(values | {"verdict": verdict}))


def test_verdict_digest_does_not_depend_on_the_order_of_keys():
    first, second = {"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}
    assert verdict_digest(first) == verdict_digest(second)
    written = b'{"a": 1, "b": {"c": 2, "d": 3}}'  # as the digests in artifacts that exist were made
    assert verdict_digest(first) == hashlib.sha256(written).hexdigest()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("format", "tflite"),
        ("format", None),
        ("format", ["onnx"]),
        ("name", 3),
        ("class_names", []),
        ("class_names", "BG"),
        ("class_names", ["BG", 1]),
        ("class_names", None),
        ("image_channels", 0),
        ("image_channels", 3.0),
        ("image_channels", True),
        ("max_detections", -1),
        ("max_detections", "7"),
        ("mask_size", None),
        ("mask_paste", "nearest"),
        ("mask_paste", {}),
        ("score_threshold", "0.5"),
        ("score_threshold", None),
        ("score_threshold", 1.5),
        ("score_threshold", -0.1),
        ("score_threshold", float("nan")),
        ("nms_threshold", 2),
        ("nms_threshold", [0.5]),
        ("nms_threshold", float("inf")),
        ("opset", "17"),
        ("resize", None),
        ("resize", "square"),
        ("resize", {}),
        ("resize", {"mode": "stretch"}),
        ("resize", {"mode": "square"}),
        ("resize", {"mode": "square", "max_dim": -64}),
        ("resize", {"mode": "none", "colour": "red"}),
        ("engine_minimum", None),
        ("engine_minimum", ["onnxruntime"]),
        ("engine_minimum", {"onnxruntime": 1.25}),
        ("producer", "me"),
        ("checkpoint", 0),
        ("verdict", []),
        ("opset", 0),
        ("borders", ["p2"]),
        ("config", "demo"),
        ("precision", "fp8"),
        ("precision", None),
        ("target", "tpu"),
        ("thresholds", "defaults"),
        ("thresholds", None),
    ],
)
def test_field_out_of_range(name, value):
    message = refusal(changed(**{name: value}))
    if name == "resize":  # read by its own class, which names the key
        assert "lacks a field or has an unusable one" in message
    else:
        assert f"its metadata has {name} out of range" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("class_names", ("BG",)),
        ("image_channels", 1),
        ("max_detections", 1),
        ("mask_size", 1),
        ("opset", 1),
        ("score_threshold", 0),
        ("score_threshold", 1),
        ("nms_threshold", 0.0),
        ("nms_threshold", 1.0),
        ("precision", "int8"),
        ("input_shape", (1, None, 1)),
        ("thresholds", "constants"),
    ],
)
def test_field_at_the_end_of_its_range(name, value):
    written = replace(METADATA, **{name: value})
    assert Metadata.from_json(written.to_json(), "here") == written


def test_all_fields_out_of_range_are_named():
    message = refusal(changed(mask_size=0, name=None, nms_threshold=7))
    assert "has name, mask_size, nms_threshold out of range" in message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(name=st.sampled_from(list(Metadata.__dataclass_fields__)), value=JSON)
def test_any_value_in_any_field_is_read_soundly_or_refused(name, value):
    try:
        metadata = Metadata.from_json(changed(**{name: value}), "here")
    except ArtifactError:
        return
    assert metadata.format in ("onnx", "savedmodel")
    assert all(isinstance(n, str) for n in metadata.class_names)
    assert 0 <= metadata.score_threshold <= 1
    assert 0 <= metadata.nms_threshold <= 1
    assert metadata.max_detections > 0
    assert metadata.engine_minimum.get("onnxruntime", "") is not None
    assert Metadata.from_json(metadata.to_json(), "here") == metadata


DEEP = [[]]
for _ in range(200):
    DEEP = [DEEP]
HOSTILE = {
    "nothing": None,
    "true": True,
    "empty text": "",
    "text": "x",
    "half a pair": "\ud800",
    "a million letters": "x" * 10**6,
    "escapes": "\x1b[2J\x00\n",
    "5,000 digits": "1." + "9" * 5000,
    "zero": 0,
    "minus one": -1,
    "a half": 0.5,
    "a billion": 10**9,
    "64 bits": 2**63,
    "400 digits": 10**400,
    "infinity": float("inf"),
    "not a number": float("nan"),
    "1e308": 1e308,
    "smallest": 5e-324,
    "empty list": [],
    "empty object": {},
    "list": [1, "x", None],
    "deep": DEEP,
    "object": {"tensor": "x", "permutation": [1, 0], "\ud800": 1},
    "wrong permutation": {"tensor": "x", "permutation": [0, 0, 7]},
}


def places(value, path=()):
    """The paths to every value in a JSON document, objects and lists included."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places(each, (*path, key))


def put(document, path, value):
    document = copy.deepcopy(document)
    at = document
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return document


FULL = json.loads(
    replace(
        METADATA,
        borders={"p2": {"tensor": "t", "permutation": [0, 2, 3, 1]}, "proposals": {"tensor": "u", "permutation": None}},
        config={"name": "fruit", "model": {"class_names": ["BG", "pomme"]}},
        input_shape=(2, 64, 128),
        edits=("class pomme was apple",),
        engine_minimum={"onnxruntime": "1.25", "tensorflow": "2.1"},
    ).to_json()
)
# The tensors are made from the other fields, and not read back.
PLACES = [path for path in places(FULL) if path and path[0] not in ("inputs", "outputs", "verdict_sha256")]
SIZES = [(1, 1), (64, 48), (3000, 1), (1, 10**7)]


def use(metadata, capsys):
    """Everything that is done with metadata; errors of ours are an answer too."""
    assert Metadata.from_json(metadata.to_json(), "here").to_json() == metadata.to_json()
    with suppress(ArtifactError, ModuleNotFoundError):  # the lean install has no program to print it
        from export import console

        console.metadata(Path("model.onnx"), metadata, metadata.verdict_flaw("00"))
    assert all(line.isprintable() for line in capsys.readouterr().out.encode().decode().splitlines())
    for engine in ("onnxruntime", "tensorflow"):
        with suppress(ArtifactError):
            check_engine(Path("model.onnx"), engine, "1.32.0", metadata.engine_minimum.get(engine))
    for size in SIZES:
        with suppress(ImageError, InputError):
            letterbox = plan_letterbox(size, metadata.resize)
            height, width = letterbox.input_size
            assert height * width <= MAX_PIXELS
    letterbox = plan_letterbox((64, 64), ResizePolicy("none"))
    outputs = {
        "num_detections": np.int32(1),
        "boxes": np.array([[8, 8, 56, 56]], np.float32),
        "scores": np.array([0.5], np.float32),
        "class_ids": np.array([min(1, len(metadata.class_names) - 1)], np.int32),
        "masks": np.ones((1, 28, 28), np.float32),
    }
    found = to_detections(outputs, letterbox, metadata.class_names, metadata.mask_paste)
    found.draw(np.zeros((64, 64, 3), np.uint8))
    json.dumps(found.to_coco(image_id=1)).encode()
    str(found).encode()


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_any_hostile_value_in_any_place_is_refused_or_harmless(value, capsys):
    accepted = 0
    for path in PLACES:
        values = put(FULL, path, value)
        values["verdict_sha256"] = verdict_digest(values["verdict"])
        try:
            metadata = Metadata.from_json(json.dumps(values), "here")
        except ArtifactError as error:
            said = str(error)
        else:
            said = ""
            use(metadata, capsys)
            accepted += 1
        assert said == "" or (said.isprintable() and len(said) < 1000)
    assert accepted < len(PLACES)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("class_names", 1), "\ud800"),
        (("class_names", 1), "x" * 10**6),
        (("name",), "\udfff"),
        (("engine_minimum", "onnxruntime"), "1." + "9" * 5000),
        (("producer", "maskrcnn-export"), "\ud800"),
        (("resize", "min_dim"), float("1e400")),
        (("resize", "min_dim"), 64 * 10**400),
        (("resize", "min_scale"), 1e308),
        (("resize",), {"mode": "square", "max_dim": 10**9}),
        (("resize",), {"mode": "square", "max_dim": 10_001}),
        (("image_channels",), 10**9),
        (("max_detections",), 10**12),
        (("mask_size",), 10**6),
        (("input_shape",), [10**9, 64, 64]),
        (("input_shape",), [1, 64, 10**9]),
        (("score_threshold",), True),
        (("borders",), {"p2": "t"}),
        (("borders",), {"p2": {"tensor": 5}}),
        (("borders",), {"p2": {"tensor": "t", "permutation": [0, 0]}}),
        (("config", "name"), "\ud800"),
        (("config", "name"), DEEP),
        (("verdict",), {"cases": DEEP}),
        (("verdict",), {"passed": "\ud800"}),
        (("verdict",), {"passed": 10**400}),
    ],
)
def test_values_that_would_fail_far_from_here_are_refused(path, value):
    values = put(FULL, path, value)
    values["verdict_sha256"] = verdict_digest(values["verdict"])
    message = refusal(json.dumps(values))
    assert path[0] in message
