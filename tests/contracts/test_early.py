"""What is wrong with a command line is said before the work: before TensorFlow and a model are loaded."""

import os
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from annotation_files import coco, write_coco
from bad_pictures import good_picture
from typer.testing import CliRunner

from maskrcnn.cli import app
from maskrcnn.data.synthetic.shapes import write_shapes
from runtime.errors import DeviceError, ForeignArtifactError
from runtime.predictor import Predictor

ROOT = Path(__file__).parents[2]
USAGE, UNUSABLE, PICTURE, OUTPUT = 2, 4, 5, 6


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    """A working folder, in which nothing may load TensorFlow or open a model."""
    write_coco(tmp_path, coco())
    write_shapes(tmp_path / "shapes", 2, 0)
    (tmp_path / "good.png").write_bytes(good_picture())
    shutil.copy(ROOT / "maskrcnn" / "demo.onnx", tmp_path / "kept.onnx")
    shutil.copy(ROOT / "maskrcnn" / "demo.weights.h5", tmp_path / "best.weights.h5")
    for name in ("shared", "inspect", "train_job"):
        monkeypatch.setattr(f"maskrcnn.commands.{name}.import_tensorflow", lambda **_: pytest.fail("it takes seconds"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def failed(code, line):
    """Return the lines of stderr of a command that must fail; the last is the error."""
    result = CliRunner().invoke(app, shlex.split(line))
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == code, result.output
    return result.stderr.splitlines()


IN_NEW_FOLDERS = {
    "evaluate demo shapes": "evaluate",
    "evaluate kept.onnx shapes": "evaluate",
    "inspect demo": "inspect",
    "inspect kept.onnx good.png": "inspect",
    "inspect --dataset shapes": "inspect",
}


@pytest.mark.parametrize("line", IN_NEW_FOLDERS)
def test_a_folder_of_runs_that_cannot_be_made(line, files, monkeypatch):
    for name in ("maskrcnn.commands.shared.open_predictor", "maskrcnn.data.readers.check.check_scan"):
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("all would be lost"))
    (files / "runs").touch()
    assert failed(OUTPUT, line)[-1].startswith(f"error: cannot write runs/{IN_NEW_FOLDERS[line]}: ")


@pytest.mark.parametrize("line", ["evaluate kept.onnx shapes", "inspect kept.onnx good.png"])
def test_an_error_leaves_no_empty_folder(line, files, monkeypatch):
    def open_predictor(*_):
        assert list((files / "runs").iterdir())
        raise DeviceError("no such device")

    monkeypatch.setattr("maskrcnn.commands.inspect.import_tensorflow", lambda: None)
    monkeypatch.setattr("maskrcnn.commands.shared.open_predictor", open_predictor)
    assert failed(3, line)[-1] == "error: no such device"
    assert not (files / "runs").exists()


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (PICTURE, "predict demo missing.png"),
        (UNUSABLE, "predict missing.onnx good.png"),
        (UNUSABLE, "predict best.pth good.png"),
        (USAGE, "predict kept.onnx good.png --class unicorn"),
        (UNUSABLE, "train missing.json --config shapes"),
        (USAGE, "train data.json --config shapes --set training.speed=9"),
    ],
)
def test_a_folder_is_announced_once_the_inputs_can_be_used(code, line, files):
    lines = failed(code, line)
    assert not [said for said in lines if "runs/" in said], lines
    assert not (files / "runs").exists()


def test_the_parts_of_a_dataset_are_its_training_and_validation_data(files, monkeypatch):
    CliRunner().invoke(app, ["data", "split", "shapes", "-o", "parts", "--val", "0.5"])
    jobs = []
    monkeypatch.setattr("maskrcnn.commands.train.TrainJob.run", lambda job, **_: jobs.append(job))
    result = CliRunner().invoke(app, ["train", "parts", "--config", "shapes", "-o", "out"])
    assert "... training on parts/train.json, validation on parts/val.json\n" in result.stderr
    assert (jobs[0].datasets, jobs[0].validation) == ((Path("parts/train.json"),), (Path("parts/val.json"),))
    run = SimpleNamespace(best=Path("out/best.weights.h5"), last=Path("out/last.weights.h5"))
    assert jobs[0].useful_next(run)[0].endswith(" parts/val.json")
    for val in ("0.2", "shapes"):
        line = f"train parts --config shapes -o out --val {val}"
        assert "has a part for validation, parts/val.json: leave out --val" in failed(USAGE, line)[-1]
    CliRunner().invoke(app, ["train", "shapes", "--config", "shapes", "-o", "out", "--val", "0.5", "--group", "video"])
    split = jobs[1].split
    assert (split.val, split.seed, split.group, jobs[1].validation) == (0.5, 0, "video", ())


OUTPUTS = {
    "export onnx demo -o good.png": "good.png already exists",
    "export onnx best.weights.h5": "best.onnx already exists",
    "export onnx demo -o new.onnx": "new.onnx.verdict.json already exists",
    "export onnx demo -o new.onnx --precision int8 --calibrate shapes": "new.onnx.verdict.json already exists",
    "export onnx demo -o good.png/x.onnx": "good.png is a file, not a folder",
    "export onnx coco -o good.png": "good.png already exists",
    "export savedmodel demo -o shapes": "shapes already exists",
    "export savedmodel demo -o shapes --force": "is never replaced",
    "export savedmodel demo -o model": "model.verdict.json already exists",
    "verify kept.onnx --against demo -o good.png": "good.png already exists",
    "verify kept.onnx --against demo -o new.onnx": "new.onnx.verdict.json already exists",
    "edit kept.onnx --rename square=box -o new.onnx": "new.onnx.verdict.json already exists",
    "data split data.json -o good.png": "good.png already exists",
    "data split data.json -o shapes --force": "is never replaced",
    "data convert data.json -o good.png --to via": "good.png already exists",
    "data convert data.json -o shapes --to yolo --force": "is never replaced",
    "inspect demo -o good.png": "good.png already exists",
    "inspect demo -o shapes --force": "is never replaced",
}


@pytest.mark.parametrize("line", OUTPUTS)
def test_an_output_that_cannot_be_written(line, files):
    for name in ("best.onnx", "new.onnx.verdict.json", "model.verdict.json"):
        (files / name).touch()
    (error,) = (said for said in failed(OUTPUT, line) if said.startswith("error: "))
    assert OUTPUTS[line] in error
    assert "overwrite=True" not in error
    assert error.endswith(" with --force") == ("already exists" in error)


@pytest.mark.parametrize("line", ["export onnx {}/best.weights.h5", "export savedmodel demo -o {}/model"])
def test_a_folder_that_is_read_only(line, files, monkeypatch):
    folder = files / "fixed"
    folder.mkdir()
    shutil.copy("best.weights.h5", folder)
    monkeypatch.setattr("runtime.atomic.os.access", lambda _, mode: not mode & os.W_OK)  # root may all
    assert "no permission in" in failed(OUTPUT, line.format(folder))[-1]


@pytest.mark.parametrize("line", ["export onnx missing.h5", "export onnx /missing/best.weights.h5"])
def test_a_missing_checkpoint_comes_before_its_output(line, files):
    (files / "missing.onnx").touch()
    assert "missing" in failed(UNUSABLE, line)[-1]


def test_verify_reads_the_artifact_first():
    assert failed(UNUSABLE, "verify missing.onnx --against demo") == ["error: there is no artifact at missing.onnx"]


# Where an artifact is expected: {} is something else.
FOR_ARTIFACTS = (
    *("show {}", "verify {} --against demo", "verify {} --precision bf16 --verify-images .", "edit {}", "doctor {}"),
    *(
        "benchmark {}",
        "benchmark {} --all",
        "export triton {} -o out",
        "export tfserving {} -o out",
        "serve {} --port 0",
    ),
)


@pytest.fixture
def others(files):
    """Checkpoints by their name or by their content, and images."""
    for name in ("best.pth", "best.pkl", "best.safetensors", "old.h5"):
        (files / name).write_bytes(b"weights")
    shutil.copy("best.weights.h5", "renamed.onnx")
    shutil.copy("good.png", "photo.JPG")


@pytest.mark.parametrize("line", FOR_ARTIFACTS)
def test_a_checkpoint_or_an_image_is_no_artifact(line, others, files):
    names = ["best.weights.h5", "photo.JPG"] if line != FOR_ARTIFACTS[0] else [path.name for path in files.iterdir()]
    for name in {*names} - {"data.json", "kept.onnx", "shapes", "images"}:
        if name.lower().endswith((".png", ".jpg")):
            said = f"{name} is an image, not a model: give an .onnx file or a SavedModel folder"
        else:
            said = f"{name} is a checkpoint, not an artifact: export it first: maskrcnn export onnx {name}"
        assert failed(UNUSABLE, line.format(name))[-1] == f"error: {said}"


@pytest.mark.parametrize("name", ["my best.weights.h5", "renamed.onnx", "photo.JPG"])
def test_a_predictor_says_so_too(name, others):
    Path("best.weights.h5").rename("my best.weights.h5")
    with pytest.raises(
        ForeignArtifactError, match=r"maskrcnn export onnx 'my best|is a checkpoint|is an image"
    ) as raised:
        Predictor(name)
    assert ("'my best.weights.h5'" in str(raised.value)) == name.startswith("my")


def test_a_predictor_does_not_know_the_demo_by_name():
    with pytest.raises(
        FileNotFoundError, match=r"at demo; only commands know.*: write demo.onnx with 'maskrcnn export"
    ):
        Predictor("demo")


def test_classes_are_compared_before_a_model_is_opened(monkeypatch):
    monkeypatch.setattr("maskrcnn.commands.shared.open_predictor", lambda *_: pytest.fail("the model is not needed"))
    for model in ("demo", "kept.onnx"):
        error = failed(UNUSABLE, f"evaluate {model} data.json")[-1]
        assert "classes that the model does not have" in error
        assert "`maskrcnn edit`" in error


TRAIN = {
    "train missing.json": (UNUSABLE, "error: missing.json does not exist"),
    "train data.json --val missing --config shapes": (UNUSABLE, "error: missing does not exist"),
    "train missing.json --config smal --set a=1": (UNUSABLE, "error: missing.json does not exist"),
    "train missing.json --resume": (UNUSABLE, "error: missing.json does not exist"),
    "train good.png --config shapes": (UNUSABLE, "error: good.png "),
    "train data.json": (USAGE, "error: no configuration: give --config FILE.json or the name of a sample (coco, "),
    "train data.json --config smal": (
        UNUSABLE,
        "error: there is no configuration smal: did you mean small? expected a file or one of coco, balloon, ",
    ),
    "train data.json --config new.json": (UNUSABLE, "error: cannot read the configuration new.json: No such file"),
    "train data.json --config small --set training.epochs=3": (
        USAGE,
        "error: unknown setting 'epochs' in config.training: did you mean 'stages.0.epochs'?",
    ),
    "train data.json --config small --set training.zoom=3": (
        USAGE,
        "error: unknown setting 'zoom' in config.training: expected one of momentum, ",
    ),
    "train data.json --config small --set train.learning_rate=3": (
        USAGE,
        "error: 'train.learning_rate=3': there is no 'train': did you mean 'training'?",
    ),
    "train data.json --config small --set training.class_weights.zebra=2": (
        UNUSABLE,
        "error: training.class_weights has the class 'zebra', which the data does not have: ",
    ),
    "train data.json --config small --set run.pacience=3": (
        USAGE,
        "error: there is no setting run.pacience: did you mean 'run.patience'?",
    ),
}


@pytest.mark.parametrize("line", TRAIN)
def test_what_training_cannot_use(line):
    code, start = TRAIN[line]
    assert failed(code, line)[-1].startswith(start)
