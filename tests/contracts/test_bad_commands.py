"""Bad command lines of both programs: the documented exit code, one line, nothing written, no traceback, no hang."""

import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_origin

import pytest
from annotation_files import coco, write_coco
from bad_pictures import good_picture
from typer.models import ArgumentInfo
from typer.testing import CliRunner

from export.cli import app as export_app
from maskrcnn.cli import app as maskrcnn_app

ROOT = Path(__file__).parents[2]
FINDINGS, USAGE, UNUSABLE, PICTURE, OUTPUT = 1, 2, 4, 5, 6
ESCAPE = "\x1b[2J\x1b]0;owned\x07\n.png"
HANG = 60  # seconds; the first case imports TensorFlow

# Each runs in the folder of `files`.
MASKRCNN = {
    "no-such-command": (USAGE, "fly"),
    "no-arguments": (USAGE, "predict"),
    "unknown-option": (USAGE, "predict demo good.png -o out --fast"),
    "predict-no-picture": (PICTURE, "predict demo missing.png -o out"),
    "predict-no-match": (PICTURE, "predict demo *.bmp -o out"),
    "predict-no-model": (UNUSABLE, "predict missing.onnx good.png -o out"),
    "predict-empty-model": (UNUSABLE, "predict empty.onnx good.png -o out"),
    "predict-text-model": (UNUSABLE, "predict text.onnx good.png -o out"),
    "predict-text-weights": (UNUSABLE, "predict text.h5 good.png -o out"),
    "predict-folder-model": (UNUSABLE, "predict folder good.png -o out"),
    "predict-picture-model": (UNUSABLE, "predict good.png good.png -o out"),
    "predict-pipe-model": (UNUSABLE, "predict pipe.onnx good.png -o out"),
    "predict-device-model": (UNUSABLE, "predict zero.onnx good.png -o out"),
    "predict-pipe-weights": (UNUSABLE, "predict pipe.h5 good.png -o out"),
    "predict-output-is-a-file": (OUTPUT, "predict demo good.png -o good.png"),
    "predict-output-below-a-file": (OUTPUT, "predict demo good.png -o good.png/out"),
    "predict-output-in-proc": (OUTPUT, "predict demo good.png -o /proc/out"),
    "predict-deep-run": (OUTPUT, "predict demo good.png -o deep-run"),
    "predict-huge-run": (OUTPUT, "predict demo good.png -o huge-run"),
    "predict-nan-threshold": (USAGE, "predict demo good.png -o out --score-threshold nan"),
    "predict-high-threshold": (USAGE, "predict demo good.png -o out --score-threshold 2"),
    "predict-negative-overlap": (USAGE, "predict demo good.png -o out --nms-threshold -0.1"),
    "predict-nan-range": (USAGE, "predict demo good.png -o out --value-range nan 5"),
    "predict-reversed-range": (USAGE, "predict demo good.png -o out --value-range 9 3"),
    "predict-endless-range": (USAGE, "predict demo good.png -o out --value-range 0 1e999"),
    "train-empty-range": (USAGE, "train data.json -o out --config shapes --value-range 5 5"),
    "predict-band": (USAGE, "predict demo good.png -o out --bands 0,1,2"),
    "predict-text-bands": (USAGE, "predict demo good.png -o out --bands a,b"),
    "predict-text-threshold": (USAGE, "predict demo good.png -o out --score-threshold much"),
    "predict-unknown-class": (USAGE, "predict demo good.png -o out --class unicorn"),
    "predict-no-batch": (USAGE, "predict demo good.png -o out --batch-size 0"),
    "predict-huge-config": (UNUSABLE, "predict text.h5 good.png -o out --config huge.json"),
    "predict-no-config": (UNUSABLE, "predict text.h5 good.png -o out --config missing.json"),
    "serve-no-model": (UNUSABLE, "serve missing.onnx --port 0"),
    "serve-text-model": (UNUSABLE, "serve text.onnx --port 0"),
    "serve-weights": (UNUSABLE, "serve text.h5 --port 0"),
    "serve-port": (USAGE, "serve demo --port 65536"),
    "serve-host": (USAGE, "serve demo --port 0 --host 999.0.0.1"),
    "serve-threads": (USAGE, "serve demo --port 0 --threads 100000"),
    "serve-batch": (USAGE, "serve demo --port 0 --batch-size 20000"),
    "serve-pixels": (USAGE, "serve demo --port 0 --max-pixels 0"),
    "serve-nan-delay": (USAGE, "serve demo --port 0 --max-delay nan"),
    "serve-endless-timeout": (USAGE, "serve demo --port 0 --timeout inf"),
    "check-missing": (FINDINGS, "data check missing.json"),
    "check-huge": (FINDINGS, "data check huge.json"),
    "check-huge-object": (FINDINGS, "data check object.json"),
    "check-picture": (FINDINGS, "data check good.png"),
    "check-empty-folder": (FINDINGS, "data check folder"),
    "check-pipe": (FINDINGS, "data check pipe.json"),
    "check-format": (USAGE, "data check data.json --format yaml"),
    "shapes-none": (USAGE, "data shapes out --count 0"),
    "shapes-no-shares": (USAGE, "data shapes out --count 1 --shares 0 0 0"),
    "shapes-negative-share": (USAGE, "data shapes out --count 1 --shares 1 -1 1"),
    "shapes-nan-share": (USAGE, "data shapes out --count 1 --shares 1 nan 1"),
    "shapes-on-a-file": (OUTPUT, "data shapes good.png --count 1"),
    "split-nothing": (UNUSABLE, "data split missing.json -o out"),
    "split-everything": (USAGE, "data split data.json -o out --val 1"),
    "split-too-much": (USAGE, "data split data.json -o out --val 0.6 --test 0.4"),
    "split-nan": (USAGE, "data split data.json -o out --val nan"),
    "split-group": (USAGE, "data split data.json -o out --group camera"),
    "split-on-a-file": (OUTPUT, "data split data.json -o good.png"),
    "split-on-a-folder": (OUTPUT, "data split data.json -o folder"),
    "convert-nothing": (UNUSABLE, "data convert missing.json -o out --to coco"),
    "convert-format": (USAGE, "data convert data.json -o out --to masks"),
    "convert-on-a-file": (OUTPUT, "data convert data.json -o good.png --to yolo --force"),
    "evaluate-no-data": (UNUSABLE, "evaluate demo missing.json -o out"),
    "evaluate-no-model": (UNUSABLE, "evaluate missing.onnx data.json -o out"),
    "evaluate-high-threshold": (USAGE, "evaluate demo data.json -o out --score-threshold 50"),
    "evaluate-limit": (USAGE, "evaluate demo data.json -o out --limit 0"),
    "train-huge-data": (UNUSABLE, "train huge.json -o out --config shapes"),
    "train-no-data": (UNUSABLE, "train missing.json -o out"),
    "train-same-twice": (UNUSABLE, "train data.json data.json -o out --config shapes"),
    "train-share-of-nothing": (USAGE, "train data.json -o out --config shapes --val 0"),
    "train-share-beyond-all": (USAGE, "train data.json -o out --config shapes --val 20"),
    "train-share-nan": (USAGE, "train data.json -o out --config shapes --val nan"),
    "train-group-of-nothing": (USAGE, "train data.json -o out --config shapes --group folder"),
    "train-seed-of-nothing": (USAGE, "train data.json -o out --config shapes --val data.json --val-seed 1"),
    "train-without-config": (USAGE, "train data.json -o out"),
    "train-no-config": (UNUSABLE, "train data.json -o out --config missing.json"),
    "train-text-config": (UNUSABLE, "train data.json -o out --config text.h5"),
    "train-deep-config": (UNUSABLE, "train data.json -o out --config deep.json"),
    "train-unknown-setting": (USAGE, "train data.json -o out --config shapes --set training.speed=9"),
    "train-nan-setting": (USAGE, "train data.json -o out --config shapes --set training.learning_rate=nan"),
    "train-unknown-class": (UNUSABLE, "train data.json -o out --config shapes --set training.class_weights.zebra=2"),
    "train-nan-weight": (USAGE, "train data.json -o out --config shapes --set training.class_weights.a=NaN"),
    "train-no-share": (USAGE, "train data.json -o out --config shapes --set training.repeat_threshold=2"),
    "train-no-head": (USAGE, "train data.json -o out --config shapes --set model.mask_head_deconvolutions=3"),
    "train-no-value": (USAGE, "train data.json -o out --config shapes --set training.learning_rate"),
    "train-run-setting": (USAGE, "train data.json -o out --config shapes --set run.speed=9"),
    "train-no-run-setting": (USAGE, "train data.json -o out --config shapes --set run.keep=many"),
    "train-low-run-setting": (USAGE, "train data.json -o out --config shapes --set run.keep=-1"),
    "train-no-log-steps": (USAGE, "train data.json -o out --config shapes --set run.log_steps=0"),
    "train-verbose": (USAGE, "train data.json -o out --config shapes --set run.verbose=3"),
    "train-no-epochs": (USAGE, "train data.json -o out --config shapes --epochs 0"),
    "train-no-expression": (UNUSABLE, "train data.json -o out --config shapes --layers ( --epochs 1"),
    "train-no-weights": (UNUSABLE, "train data.json -o out --init missing.h5 --config shapes --epochs 1"),
    "inspect-no-layer": (USAGE, "inspect demo -o out --layer res9z"),
    "inspect-no-model": (UNUSABLE, "inspect missing.onnx data.json -o out"),
}
EXPORT = {
    "no-such-command": (USAGE, "fly"),
    "onnx-nothing": (USAGE, "onnx -o out.onnx"),
    "savedmodel-nothing": (USAGE, "savedmodel -o out"),
    "verify-nothing": (USAGE, "verify text.onnx"),
    "onnx-no-checkpoint": (UNUSABLE, "onnx missing.h5 -o out.onnx"),
    "onnx-text-checkpoint": (UNUSABLE, "onnx text.h5 -o out.onnx"),
    "onnx-pipe-checkpoint": (UNUSABLE, "onnx pipe.h5 -o out.onnx"),
    "onnx-opset": (USAGE, "onnx demo -o out.onnx --opset 3"),
    "onnx-batch": (USAGE, "onnx demo -o out.onnx --target tensorrt --batch 65"),
    "onnx-batch-of-any-target": (USAGE, "onnx demo -o out.onnx --batch 2"),
    "onnx-int8-for-a-gpu": (USAGE, "onnx demo -o out.onnx --precision int8 --calibrate folder --target cuda"),
    "onnx-nan-drop": (USAGE, "onnx demo -o out.onnx --precision int8 --calibrate folder --max-drop nan"),
    "triton-missing": (UNUSABLE, "triton missing.onnx -o out"),
    "triton-text": (UNUSABLE, "triton text.onnx -o out"),
    "triton-name": (USAGE, "triton demo -o out --name a/b"),
    "triton-no-batch": (USAGE, "triton demo -o out --max-batch 0"),
    "triton-processor": (USAGE, "triton demo -o out --processor tpu"),
    "triton-threads": (USAGE, "triton demo -o out --threads -1"),
    "triton-many-threads": (USAGE, "triton demo -o out --threads 99999999999"),
    "triton-threads-of-a-gpu": (USAGE, "triton demo -o out --threads 2 --processor gpu"),
    "triton-batch-of-64-bits": (USAGE, "triton demo -o out --max-batch 3000000000"),
    "triton-on-a-file": (OUTPUT, "triton demo -o good.png --force"),
    "triton-on-a-folder": (OUTPUT, "triton demo -o . --force"),
    "tfserving-missing": (UNUSABLE, "tfserving missing -o out"),
    "tfserving-file": (UNUSABLE, "tfserving demo -o out"),
    "tfserving-on-a-file": (OUTPUT, "tfserving demo -o good.png --force"),
    "edit-unknown-class": (USAGE, "edit demo.onnx --rename unicorn=horse"),
    "edit-no-name": (USAGE, "edit demo.onnx --rename square="),
    "edit-nothing": (USAGE, "edit demo.onnx"),
    "edit-nan": (USAGE, "edit demo.onnx --nms-threshold nan"),
    "edit-text": (UNUSABLE, "edit text.onnx --rename square=box"),
    "edit-stands": (OUTPUT, "edit demo.onnx --rename square=box -o text.onnx"),
    "benchmark-chart": (USAGE, "benchmark text.onnx --chart chart.pickle"),
    "onnx-stands": (OUTPUT, "onnx demo -o text.onnx"),
    "onnx-uncalibrated": (USAGE, "onnx demo -o out.onnx --precision int8"),
    "onnx-no-pictures": (PICTURE, "onnx demo -o out.onnx --verify-images missing"),
    "onnx-pipe-config": (UNUSABLE, "onnx text.h5 -o out.onnx --config pipe.json"),
    "onnx-deep-config": (UNUSABLE, "onnx text.h5 -o out.onnx --config deep.json"),
    "savedmodel-stands": (OUTPUT, "savedmodel demo -o folder"),
    "verify-missing": (UNUSABLE, "verify missing.onnx --against demo"),
    "inspect-missing": (UNUSABLE, "inspect missing.onnx"),
    "inspect-empty": (UNUSABLE, "inspect empty.onnx"),
    "inspect-text": (UNUSABLE, "inspect text.onnx"),
    "inspect-folder": (UNUSABLE, "inspect folder"),
    "inspect-huge": (UNUSABLE, "inspect huge.onnx"),
    "inspect-huge-manifest": (UNUSABLE, "inspect huge-model"),
    "inspect-pipe": (UNUSABLE, "inspect pipe.onnx"),
    "inspect-device": (UNUSABLE, "inspect zero.onnx"),
    "doctor-missing": (UNUSABLE, "doctor missing.onnx"),
    "doctor-text": (UNUSABLE, "doctor text.onnx"),
    "doctor-pipe": (UNUSABLE, "doctor pipe.onnx"),
    "benchmark-all-missing": (UNUSABLE, "benchmark missing.onnx --all"),
    "benchmark-all-no-truth": (UNUSABLE, "benchmark demo --all --truth missing.json"),
    "benchmark-all-stands": (OUTPUT, "benchmark text.onnx --all -o good.png"),
    "benchmark-all-nan": (USAGE, "benchmark demo --all --max-drop nan"),
    "benchmark-missing": (UNUSABLE, "benchmark missing.onnx"),
    "benchmark-no-batch": (USAGE, "benchmark text.onnx --batch 0"),
    "benchmark-stands": (OUTPUT, "benchmark text.onnx -o good.png"),
}


class Hang(BaseException):
    """A case took too long. Not an `Exception`, so that the tested code does not catch it."""


CASES = [
    pytest.param(app, *case, id=f"{program}-{name}")
    for program, app, cases in (("maskrcnn", maskrcnn_app, MASKRCNN), ("export", export_app, EXPORT))
    for name, case in cases.items()
]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The working folder: a sound image and dataset, and files that are not what their names say."""
    write_coco(tmp_path, coco())
    (tmp_path / "good.png").write_bytes(good_picture())
    (tmp_path / "empty.onnx").touch()
    shutil.copy(ROOT / "maskrcnn" / "demo.onnx", tmp_path)
    for name in ("text.onnx", "text.h5"):
        (tmp_path / name).write_text("this is no model")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "folder").mkdir()
    for name in ("huge.json", "object.json", "huge.onnx", "huge-run/run.json", "huge-model/assets/artifact.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"" if name == "huge.json" else b'{"a": "')
        os.truncate(tmp_path / name, 2**40)  # without a byte on the disk
    (tmp_path / "deep-run").mkdir()
    (tmp_path / "deep-run" / "run.json").write_text("[" * 100_000)
    for name in ("pipe.onnx", "pipe.h5", "pipe.json"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "zero.onnx").symlink_to("/dev/zero")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def alarm():
    def too_long(*_):
        raise Hang(f"over {HANG} seconds")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(HANG)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(("app", "code", "line"), CASES)
def test_a_bad_command_line(app, code, line, files, alarm):
    before = sorted(files.iterdir())
    result = CliRunner().invoke(app, line.split())
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    if code not in (USAGE, FINDINGS):
        (said,) = (text for text in result.stderr.splitlines() if not text.startswith(("... ", "warning: ")))
        assert said.startswith("error: ")
        assert said.isprintable()
    assert [path for path in sorted(files.iterdir()) if path.name != "out"] == before


def commands(app, path=()):
    """Every command of a program: its words, and name, type and option of each of its parameters."""
    for command in app.registered_commands:
        parameters = inspect.signature(command.callback).parameters.values()
        described = [(each, *get_args(each.annotation)[:2]) for each in parameters if get_args(each.annotation)[1:]]
        yield (*path, command.name or command.callback.__name__), described
    for group in app.registered_groups:
        yield from commands(group.typer_instance, (*path, group.name))


def parts(kind):
    """The types that a type consists of."""
    yield kind
    for part in get_args(kind):
        yield from parts(part)


def flag(parameter, option):
    return next(iter(option.param_decls or ()), "--" + parameter.name.replace("_", "-"))


NUMBERS = [
    pytest.param(maskrcnn_app, path, *each, id=" ".join((*path, each[0].name)))  # which has all commands
    for path, described in commands(maskrcnn_app)
    for each in described
    if {int, float} & set(parts(each[1])) and tuple not in map(get_origin, parts(each[1]))
]


@pytest.mark.parametrize(("app", "path", "parameter", "kind", "option"), NUMBERS)
def test_a_number_out_of_range_is_wrong_usage(app, path, parameter, kind, option, files):
    """Every option that takes a number has a range, and what is outside of it, or no number, is refused on parsing."""
    assert option.min is not None
    line = list(path)
    for other, _, needed in dict(commands(app))[path]:
        if other.default is inspect.Parameter.empty:
            line += ["text.onnx"] if isinstance(needed, ArgumentInfo) else [flag(other, needed), "out"]
    values = [option.min - 1, "many", "nan", *(["1.5"] if int in parts(kind) else ["1e9999", "-1e9999"])]
    values += [] if option.max is None else [option.max + 1]
    for value in values:
        result = CliRunner().invoke(app, [*line, f"{flag(parameter, option)}={value}"], env={"COLUMNS": "200"})
        assert result.exit_code == USAGE, (value, result.output)
        assert flag(parameter, option) in result.output, value
        assert "Missing" not in result.output, value
    assert not (files / "out").exists()


def test_there_are_enough():
    assert len(NUMBERS) > 15
    assert len(CASES) > 60


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["maskrcnn", "predict", "missing.onnx", f"a{ESCAPE}", "-o", "out"], PICTURE),
        (["maskrcnn", "data", "check", f"b{ESCAPE}"], FINDINGS),
        (["maskrcnn", "train", f"c{ESCAPE}", "-o", "out"], UNUSABLE),
        (["export", "show", f"d{ESCAPE}"], UNUSABLE),
        (["export", "show", os.fsdecode(b"\xff\xfe.onnx")], UNUSABLE),
    ],
    ids=["predict", "check", "train", "inspect", "inspect-bytes"],
)
def test_names_that_a_terminal_would_obey(command, code, files, pytestconfig):
    environment = os.environ | {"PYTHONPATH": str(pytestconfig.rootpath)}
    run = [sys.executable, "-m", *command]
    done = subprocess.run(run, cwd=files, env=environment, capture_output=True, check=False, timeout=120)
    printed = (done.stdout + done.stderr).decode("utf-8")
    assert done.returncode == code, printed
    assert "Traceback" not in printed
    assert all(text.isprintable() for text in printed.splitlines()), json.dumps(printed)
