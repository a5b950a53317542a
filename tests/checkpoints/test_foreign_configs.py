"""Configurations of Detectron2 and MMDetection: read as data, with those that they build on, never run."""

import pytest

from maskrcnn.checkpoints.pytorch.detectron2_config import read_detectron2_config
from maskrcnn.checkpoints.pytorch.mmdet_config import read_mmdet_config
from maskrcnn.errors import ConfigError

BASE_YAML = """
MODEL:
  RESNETS: {OUT_FEATURES: ["res2", "res3"], STRIDE_IN_1X1: True}
  PIXEL_MEAN: (103.53, 116.28, 123.675)
SOLVER:
  STEPS: (60000, 80000)
INPUT:
  MIN_SIZE_TEST: 800
  FORMAT: BGR
"""
OWN_YAML = """
_BASE_: "../base.yaml"
MODEL:
  WEIGHTS: ""
  RESNETS:
    DEPTH: 50
  RPN: {NMS_THRESH: 7e-1, IN_FEATURES: !!python/tuple [p2, p3]}
DATASETS:
  TRAIN: ("coco_2017_train",)
"""
BASE_PY = """
# what a network looks like
import torch
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    backbone=dict(type='ResNet', depth=50, norm_cfg=norm_cfg),
    roi_head={'bbox_head': dict(num_classes=80, target_stds=[0.1, 0.2])},
    test_cfg=dict(rpn=dict(nms_pre=1000)))
optimizer = dict(lr=0.02 / 8, decay=-1e-4, momentum=momentum())
"""
OWN_PY = """
_base_ = ['../base.py']
model = dict(roi_head=dict(bbox_head=dict(num_classes=4)), test_cfg=dict(_delete_=True, score=(0.05, None)))
data = dict(batch=2 * 4)
"""
WHOLE_MODEL = {
    "backbone": {"type": "ResNet", "depth": 50, "norm_cfg": {"type": "BN", "requires_grad": True}},
    "roi_head": {"bbox_head": {"num_classes": 4, "target_stds": [0.1, 0.2]}},
    "test_cfg": {"score": [0.05, None]},
}


@pytest.fixture
def write(tmp_path):
    """Function that writes a file in a folder below its base, and returns its path."""
    (tmp_path / "own").mkdir()

    def write(text, suffix, base=""):
        (tmp_path / f"base{suffix}").write_text(base)
        path = tmp_path / "own" / f"x{suffix}"
        path.write_text(text)
        return path

    return write


def test_a_configuration_of_detectron2_with_its_base(write):
    pytest.importorskip("yaml")
    assert read_detectron2_config(write(OWN_YAML, ".yaml", BASE_YAML)) == {
        "MODEL": {
            "WEIGHTS": "",
            "RESNETS": {"OUT_FEATURES": ["res2", "res3"], "STRIDE_IN_1X1": True, "DEPTH": 50},
            "PIXEL_MEAN": [103.53, 116.28, 123.675],
            "RPN": {"NMS_THRESH": 0.7, "IN_FEATURES": ["p2", "p3"]},
        },
        "INPUT": {"MIN_SIZE_TEST": 800, "FORMAT": "BGR"},
        "DATASETS": {"TRAIN": ["coco_2017_train"]},
    }


BAD_YAML = {
    "code": (
        "MODEL: !!python/object/apply:os.system [touch HERE]",
        "line 1 asks for python/object/apply:os.system, which is not run",
    ),
    "code, spelled out": (
        "MODEL:\n  A: !<tag:yaml.org,2002:python/name:os.system> x",
        "line 2 asks for tag:yaml.org,2002:python/name:os.system",
    ),
    "code, by another handle": (
        "%TAG !p! tag:yaml.org,2002:python/\n---\nMODEL: !p!name:os.system x",
        "asks for name:os.system",
    ),
    "aliases": (
        "\n".join(["a0: &a0 [x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40))]),
        "more than",
    ),
    "itself": ("MODEL: &a [*a]", "cannot be read as YAML"),
    "depth": ("MODEL: " + "[" * 5000, "line 1 is more than 30 levels deep"),
    "some depth": ("MODEL: " + "[" * 50 + "]" * 50, "line 1 is more than 30 levels deep"),
    "size": ("MODEL: " + "x" * 300_000, "at most 200000"),
    "no mapping": ("- 1", "has no settings"),
    "no model": ("SOLVER: {}", "no section MODEL"),
    "no YAML": ("MODEL: {", "cannot be read as YAML"),
    "no base": (
        "_BASE_: ../nowhere.yaml\nMODEL: {}",
        "builds on .*nowhere.yaml, which is not there: .*complete config",
    ),
    "a base elsewhere": ("_BASE_: https://example.org/a.yaml", "expected the path of a .yaml"),
    "a base of another kind": ("_BASE_: /etc/passwd", "is not read: expected a .yaml|not there"),
    "its own base": ("_BASE_: x.yaml\nMODEL: {}", "builds on itself"),
    "often its own base": ("_BASE_: [x.yaml, x.yaml, x.yaml]\nMODEL: {}", "builds on itself"),
    "a long name": (f"_BASE_: {'x' * 5000}.yaml", "not there"),
    "a number as base": ("_BASE_: {a: 1}", "expected the path"),
}


@pytest.mark.parametrize("name", BAD_YAML)
def test_a_bad_configuration_of_detectron2(write, tmp_path, name):
    pytest.importorskip("yaml")
    text, message = BAD_YAML[name]
    with pytest.raises(ConfigError, match=message):
        read_detectron2_config(write(text.replace("HERE", str(tmp_path / "run")), ".yaml"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("off", False),
        ("0x10", 16),
        ("~", None),
        ("(1, (2.5, 'a'))", [1, [2.5, "a"]]),
        ("{1, 2}", "{1, 2}"),
        ("1 + 2j", "1 + 2j"),
        ("1e999", "1e999"),
        ("__import__('os')", "__import__('os')"),
        ("(" * 300, "(" * 300),
        ("-" * 1500 + "1", "-" * 1500 + "1"),
        ("9" * 1900, None),
        (r"'\d'", r"\d"),
        ("1is", "1is"),
    ],
    ids=range(14),
)
def test_values_of_detectron2(write, text, value):
    """As Detectron2 reads them: a text that is a Python value is that value."""
    yaml = pytest.importorskip("yaml")
    found = read_detectron2_config(write(yaml.safe_dump({"MODEL": {"A": text}}), ".yaml"))["MODEL"]["A"]
    assert found == (int(text) if value is None and text[0] == "9" else value)


def test_a_configuration_of_mmdetection_with_its_base(write):
    found = read_mmdet_config(write(OWN_PY, ".py", BASE_PY))
    assert found["model"] == WHOLE_MODEL
    assert found["data"] == {"batch": 8}
    assert "optimizer" not in found  # its value needs code


@pytest.mark.parametrize("first", ["", "/somewhere/base.py"])
def test_the_text_in_a_checkpoint(first):
    """Old versions wrote all files in a row, each after a line with its path."""
    assert read_mmdet_config(f"{first}\n{BASE_PY}\n/somewhere/own.py\n{OWN_PY}")["model"] == WHOLE_MODEL


BAD_PY = {
    "code in the model": (
        "a = 1\nmodel = dict(\n  a=__import__('os').system('touch HERE'))",
        "line 3: the value of model",
    ),
    "code beside it": ("import os\nos.system('touch HERE')\nmodel = dict()", "line 2: Expr is not run"),
    "a variable of code": ("a = open('HERE', 'w')\nmodel = dict(a=a)", "line 2: the value of model needs code"),
    "a changed model": ("model = dict(a=1)\nmodel['a'] = 2", "line 2: Assign is not run"),
    "more to the model": ("model = dict(a=1)\nmodel.update(a=2)", "line 2: Expr"),
    "a loop": ("for x in 'a':\n  pass", "line 1: For"),
    "a lazy base": ("with read_base():\n  from .a import *", "line 1: With"),
    "another base's variable": ("model = dict(a={{_base_.a}})", "line 1: the value of model"),
    "a function": ("def f(): pass", "FunctionDef"),
    "spread": ("a = dict()\nmodel = dict(**a)", "needs code"),
    "positions": ("model = dict([])", "needs code"),
    "power": ("model = 9 ** 9 ** 9", "needs code"),
    "long texts": ("a = 'x' * 10 ** 9\nmodel = a", "needs code"),
    "large numbers": ("model = " + "*".join(["10" * 7] * 40), "needs code"),
    "a huge number": ("model = " + "1" * 4000, "needs code"),
    "division": ("model = 1 / 0", "needs code"),
    "not a number": ("model = 1e999 - 1e999", "needs code"),
    "a list as key": ("model = {(1, 2): 3}", "needs code"),
    "growth": ("a = [1, 1]\n" + "a = [a, a]\n" * 40 + "model = a", "more than"),
    "depth": ("model = " + "dict(a=" * 90 + "1" + ")" * 90, "more than"),
    "great depth": ("model = " + "-" * 20_000 + "1", "nested too deeply"),
    "a long sum": ("model = 1" + "+1" * 20_000, "nested too deeply"),
    "no Python": ("model = dict(\n", "line 1: "),
    "a zero": ("model = 1\0", "MMDetection"),
    "size": ("#" + "x" * 300_000, "at most 200000"),
    "no base": ("_base_ = ['mmdet::x.py']", "expected the path of a .py"),
    "no base there": ("_base_ = '../nowhere.py'", "nowhere.py, which is not there: .*Config.fromfile"),
    "its own base": ("_base_ = 'x.py'", "builds on itself"),
}


@pytest.mark.parametrize("name", BAD_PY)
def test_a_bad_configuration_of_mmdetection(write, tmp_path, name):
    text, message = BAD_PY[name]
    with pytest.raises(ConfigError, match=message):
        read_mmdet_config(write(text.replace("HERE", str(tmp_path / "run")), ".py"))
    assert not (tmp_path / "run").exists()


def test_a_text_that_needs_other_files_or_is_too_long():
    with pytest.raises(ConfigError, match="builds on other files"):
        read_mmdet_config("_base_ = 'a.py'\nmodel = dict()\n")
    with pytest.raises(ConfigError, match="letters"):
        read_mmdet_config("#\n" * 200_000)
