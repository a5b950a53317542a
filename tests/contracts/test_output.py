"""What all commands of both programs print: one JSON document with --json, no messages with --quiet."""

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer.main
from annotation_files import coco, write_coco
from PIL import Image
from typer.testing import CliRunner

import export
from export.cli import app as export_app
from export.doctor.finding import DoctorFinding
from export.verify.verdict import CaseResult, PrecisionGate, StageResult, Verdict
from maskrcnn.cli import app as maskrcnn_app
from maskrcnn.commands import console
from runtime.predictor import Predictor

ROOT = Path(__file__).parents[2]
APPS = {"maskrcnn": maskrcnn_app, "maskrcnn-export": export_app}
ALWAYS = {"command", "exit_code", "written", "warnings", "next"}
REASON = "mask head: the mask of row 12 differs by 1.2e-01, its box by 3.8e-06 of the image"
VERDICT = Verdict(
    reference="Keras",
    engine="ONNX Runtime",
    stages=tuple(StageResult("detection", f"tensor_{number}", 1e-5, 1e-4, False) for number in range(6)),
    cases=(
        CaseResult("photo", 7, 7, float("nan"), float("inf"), 0.0, True, decisions=(REASON, REASON)),
        CaseResult("other", 1, 1, 0.0, 0.0, 0.0, True),
    ),
    score_threshold=0.5,
    nms_threshold=0.5,
)
GATE = PrecisionGate("bf16", "annotations", "mask AP", 2, 9, 0.5, 0.5, 0.005, {"apple": (0.5, None)})


def leaves(command, *path):
    """Yield the words and the object of each command that does something."""
    below = getattr(command, "commands", {})
    for name, each in below.items():
        yield from leaves(each, *path, name)
    if not below:
        yield " ".join(path), command


COMMANDS = {words: each for name, app in APPS.items() for words, each in leaves(typer.main.get_command(app), name)}

# How to call each, in the folder of `files`, where what takes long is replaced by `quick`.
LINES = {
    "maskrcnn train": "data.json -o out --config shapes",
    "maskrcnn evaluate": "demo.onnx shapes -o out",
    "maskrcnn predict": "demo.onnx good.png -o out",
    "maskrcnn results": "rows -o out.csv",
    "maskrcnn serve": "demo --port 0",
    "maskrcnn inspect": "demo.onnx good.png -o out",
    "maskrcnn config from": "demo",
    "maskrcnn data check": "data.json",
    "maskrcnn data split": "data.json -o out --val 0.5",
    "maskrcnn data convert": "data.json -o out --to yolo",
    "maskrcnn data shapes": "out --count 1",
    "maskrcnn weights list": "",
    "maskrcnn weights fetch": "coco",
    "maskrcnn weights convert": "demo --to maskrcnn -o out.weights.h5",
    "maskrcnn export onnx": "demo -o out.onnx",
    "maskrcnn export savedmodel": "demo -o out",
    "maskrcnn verify": "demo.onnx --against demo",
    "maskrcnn edit": "demo.onnx --rename square=box -o out.onnx",
    "maskrcnn show": "demo.onnx",
    "maskrcnn benchmark": "demo.onnx --runs 1 --device cpu",
    "maskrcnn export triton": "demo -o out",
    "maskrcnn export tfserving": "demo.onnx -o out",
    "maskrcnn doctor": "",
    "maskrcnn demo": "-o out",
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    write_coco(tmp_path, coco())
    (tmp_path / "demo.onnx").symlink_to(ROOT / "maskrcnn" / "demo.onnx")
    Image.open(ROOT / "maskrcnn" / "demo.jpg").save(tmp_path / "good.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def documented():
    """Return the fields of each command that docs/commands.md names: those always there, and all."""
    rows = re.findall(r"^\| `(maskrcnn[^`]*)` \|(.*)\|$", (ROOT / "docs" / "commands.md").read_text(), re.MULTILINE)

    def named(text):
        return set(re.findall(r"`([a-z_]+)`", re.sub(r"\((?:`numbers`|in this|\"fin)[^)]*\)", "", text)))

    return {words: (named(re.sub(r"\([^()]*`[^()]*\)", "", text)), named(text)) for words, text in rows}


@pytest.fixture
def quick(monkeypatch):
    """Replace what takes long; what it prints itself must not be on stdout."""

    def says(value):
        def call(*_arguments, progress=lambda _: None, **_options):
            sys.stdout.write("a library speaks\n")
            progress("working")
            return value

        return call

    model = SimpleNamespace(config=SimpleNamespace(model=SimpleNamespace(class_names=("BG", "a"))))
    monkeypatch.setattr("export.cli.load", says((model, {"checkpoint": {}, "source": None})))
    for name in ("export_onnx", "export_savedmodel", "verify_artifact"):
        monkeypatch.setitem(vars(export), name, says(VERDICT))
    monkeypatch.setattr("export.serving.tfserving.write_tfserving_model", says([Path("out/1")]))
    monkeypatch.setattr("export.doctor.examine.examine", lambda *_: [DoctorFinding("ok", "python", "3")])
    monkeypatch.setattr("export.demo.run_demo", lambda folder, _, show: [show(VERDICT) or folder / "image.png"])
    monkeypatch.setattr("maskrcnn.commands.train.TrainJob.run", trained)
    monkeypatch.setattr("maskrcnn.commands.shared.load_network", says((model, None)))
    monkeypatch.setattr("maskrcnn.checkpoints.checkpoint.save_checkpoint", says(None))
    monkeypatch.setattr("maskrcnn.commands.shared.fetch", says(Path("coco.h5")))
    monkeypatch.setattr("maskrcnn.serving.server.serve", lambda _app, _bound, opened, _host: opened("http://h:1"))
    monkeypatch.setattr("maskrcnn.inspection.report.inspect_pictures", says(SimpleNamespace(write=says(None))))
    totals = SimpleNamespace(pictures=1, detections=2)
    monkeypatch.setattr("maskrcnn.batch.results.write_row_results", says(totals))


LOSSES = ("loss", "rpn_class_loss", "rpn_bbox_loss", "mrcnn_class_loss", "mrcnn_bbox_loss", "mrcnn_mask_loss")
LOGS = {f"{prefix}{name}": 0.123456 for prefix in ("", "val_") for name in (*LOSSES, "learning_rate")}
LOGS |= {"val_segm_ap": 0.987654, "loss": float("nan")}


def test_the_end_of_training_is_short_and_aligned(files, quick):
    """With the names of the progress; all values are in the document."""
    result = call("maskrcnn train", *LINES["maskrcnn train"].split())
    assert result.stdout.splitlines()[1:5] == [
        "training finished after 1 epoch",
        "  last epoch  loss nan  rpn 0.123/0.123  class 0.123  box 0.123  mask 0.123",
        "  validation  AP 0.988  loss 0.123",
        "  best epoch  1, score 0.5",
    ]
    document = document_of(call("maskrcnn train", *LINES["maskrcnn train"].split(), "--json"))
    assert set(document["last_epoch"]) == set(LOGS)


def trained(job, **_):
    sys.stdout.write("a library speaks\n")
    folder = SimpleNamespace(path=job.output, last=ROOT / "README.md", best=ROOT / "LICENSE")
    ended = SimpleNamespace(ended="finished", history=(LOGS,), best_epoch=0, best_score=0.5)
    console.progress("training")
    console.useful_next(*job.useful_next(folder))
    return console.training(SimpleNamespace(folder=folder, signal=None, **vars(ended)))


def call(words, *arguments):
    program, *path = words.split()
    return CliRunner().invoke(APPS[program], [*path, *arguments], prog_name=program)


def document_of(result):
    """Return the one document on stdout, whose numbers are finite."""
    (line,) = result.stdout.splitlines()
    return json.loads(line, parse_constant=pytest.fail)


def test_the_table_has_every_command():
    """Those of `maskrcnn-export` are among them, see test_help.py."""
    assert set(LINES) == set(documented()) == {words for words in COMMANDS if words.startswith("maskrcnn ")}


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_has_the_options(words):
    options = Counter(name for parameter in COMMANDS[words].params for name in parameter.opts)
    assert (options["--json"], options["--quiet"], options["-q"]) == (1, 1, 1)


@pytest.mark.parametrize("words", LINES)
def test_json_of_a_command_that_succeeds(words, files, quick):
    if words == "maskrcnn evaluate":
        call("maskrcnn data shapes", "shapes", "--count", "2")
    result = call(words, *LINES[words].split(), "--json")
    assert result.exit_code == 0, result.output
    found = document_of(result)
    always, all_of_them = documented()[words]
    assert (found["command"], found["exit_code"]) == (words, None if words.endswith("serve") else 0)
    assert always <= set(found) - ALWAYS <= all_of_them
    assert all(isinstance(path, str) for path in found["written"])
    assert bool(found["written"]) == ("-o" in LINES[words] or words.endswith("shapes"))


@pytest.mark.parametrize("words", LINES)
def test_a_quiet_command_prints_its_result_alone(words, files, quick):
    if words == "maskrcnn evaluate":
        call("maskrcnn data shapes", "shapes", "--count", "2")
    loud = call(words, *LINES[words].split())
    for name in ("out", "out.onnx", "out.onnx.verdict.json", "out.csv", "out.weights.h5"):
        (files / name).exists() and (files / name).rename(files / f"before-{name}")
    result = call(words, *LINES[words].split(), "--quiet")
    assert (result.exit_code, loud.exit_code) == (0, 0), result.output
    assert not [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
    assert re.match(r"(?s)((\.\.\. |next: |warning: )[^\n]*\n)*$", loud.stderr)
    lines = result.stdout.splitlines()
    assert lines
    wide = [line for line in lines if len(line) > 80 and not re.search(r"(^|[\s'])/|://|[0-9a-f]{32}", line)]
    assert wide == [] or words == "maskrcnn data check"  # whose lines begin with a relative path
    assert not re.search(r"(?<![\d.])1 (?!class)[a-z]+[^s\W]s\b|(?i:picture)", "\n".join(lines) + loud.stderr)
    assert len(lines) == len(loud.stdout.splitlines())


# Commands without --output: where they write, and what is useful next.
WITHOUT = {
    "predict demo.onnx good.png": ("runs/predict", []),
    "predict demo.onnx good.png --format parquet": ("runs/predict", []),
    "inspect demo.onnx good.png": ("runs/inspect", []),
    "evaluate demo.onnx 'my shapes' --skip-bad": (
        "runs/evaluate",
        ["maskrcnn inspect demo.onnx --skip-bad --dataset 'my shapes'"],
    ),
    "evaluate demo 'my shapes' --set detection.min_score=0.2": (
        "runs/evaluate",
        ["maskrcnn export onnx demo --set detection.min_score=0.2"],
    ),
    "evaluate demo.weights.h5 'my shapes'": (
        "runs/evaluate",
        ["maskrcnn export onnx demo.weights.h5 --output demo-3.onnx"],
    ),
    "train data.json --config shapes": ("runs/train", ["maskrcnn export onnx {best}"]),
    "train data.json --config shapes --val data.json --val 'my shapes' --val-images 'a b' --format coco": (
        "runs/train",
        [
            "maskrcnn evaluate {best} data.json --images 'a b' --format coco",
            "maskrcnn evaluate {best} 'my shapes' --images 'a b' --format coco",
            "maskrcnn export onnx {best}",
        ],
    ),
    "export onnx demo": ("demo.onnx", ["maskrcnn predict demo.onnx {photo} --overlay"]),
    "export onnx 'a b/x.weights.h5' --verify-images 'a b'": (
        "a b/x.onnx",
        ["maskrcnn predict 'a b/x.onnx' 'a b' --overlay"],
    ),
    "export onnx 'a b/x.h5' --precision int8 --calibrate photos": (
        "a b/x.int8.onnx",
        ["maskrcnn predict 'a b/x.int8.onnx' photos --overlay"],
    ),
    "export onnx coco": ("coco.onnx", ["maskrcnn show coco.onnx"]),
    "export savedmodel run/best.weights.h5": (
        "run/best_savedmodel",
        ["maskrcnn show run/best_savedmodel"],
    ),
}


def parse(line):
    """Parse a command line of a shell, without running it, as its program would."""
    program, *words = shlex.split(line)
    command = typer.main.get_command(APPS[program])
    context = command.make_context(program, words)
    while hasattr(command, "commands"):
        name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, words, parent=context)
    return context.params


@pytest.mark.parametrize("line", WITHOUT)
def test_a_command_without_an_output(line, files, quick, monkeypatch):
    """It writes to a new folder, or beside the checkpoint, and says what is useful next, ready for a shell."""
    call("maskrcnn data shapes", "my shapes", "--count", "2")
    (files / "demo.onnx").unlink()
    shutil.copy(ROOT / "maskrcnn" / "demo.onnx", files / "kept.onnx")
    if "demo.weights.h5" in line:
        shutil.copy(ROOT / "maskrcnn" / "demo.weights.h5", files)
        for name in ("demo.onnx", "demo-2.onnx.verdict.json"):
            (files / name).touch()
    (files / "demo.onnx" if "demo.onnx" in line else files / "other.onnx").symlink_to(files / "kept.onnx")
    monkeypatch.setattr("maskrcnn.commands.shared.open_predictor", lambda *_: Predictor(files / "kept.onnx", "cpu"))
    monkeypatch.setattr("maskrcnn.commands.inspect._runner", lambda _: None)
    for name in ("export_onnx", "export_savedmodel", "export_lower_precision"):
        monkeypatch.setitem(vars(export), name, lambda _model, path, *_, **__: paths.append(str(path)) or VERDICT)
    paths = []
    where, following = WITHOUT[line]
    program, *words = shlex.split(f"maskrcnn {line}")
    first, second = (CliRunner().invoke(maskrcnn_app, [*words, "--json"], prog_name=program) for _ in range(2))
    assert (first.exit_code, second.exit_code) == (0, 0), first.output + second.output
    found, again = document_of(first), document_of(second)
    names = {"photo": ROOT / "maskrcnn" / "demo.jpg", "best": ROOT / "LICENSE"}
    assert found["next"] == [each.format(**names) for each in following]
    for each in found["next"]:
        assert parse(each)
        assert f"next: {each}\n" in first.stderr
    if where.startswith("runs"):
        folders = [each.get("folder") or str(Path(each["written"][0]).parent) for each in (found, again)]
        folders = folders if "evaluate" not in line else [each["written"][0] for each in (found, again)]
        assert folders == [where, f"{where}-2"]
        assert all(Path(folder).is_dir() or "train" in line for folder in folders)
    else:
        assert found["written"] == [where]
        assert paths[0] == where


def test_the_commands_for_several_machines_need_an_output(files, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{}")
    for line in ("train data.json", "predict demo good.png --ray local"):
        result = call("maskrcnn", *line.split(), "--json")
        assert result.exit_code == 2
        assert "give it with -o" in document_of(result)["error"]["message"]
    assert not (files / "runs").exists()


@pytest.mark.parametrize("words", COMMANDS)
def test_json_of_wrong_usage(words):
    result = call(words, "--json", "--no-such-option")
    found = document_of(result)
    assert result.exit_code == found["exit_code"] == 2
    assert found["command"] == words
    assert found["error"] == {"type": "NoSuchOption", "message": "No such option: --no-such-option"}
    assert result.stderr == "error: no such option: --no-such-option\n"


WRONG = {
    "fly": "no such command 'fly'",
    "evalute": "no such command 'evalute' (did you mean 'evaluate'?)",
    "--vresion": "no such option: --vresion (did you mean --version?)",
    "predict demo x.png --ovrelay": "no such option: --ovrelay (did you mean --overlay?)",
    "predict": "missing argument 'MODEL|coco|demo'",
    "data shapes": "missing argument 'FOLDER'",
    "export triton demo": "missing option '--output' / '-o'",
    "export onnx demo --precision int9": "invalid value for '--precision': 'int9' is not one of 'fp32', 'fp16', 'int8'",
    "export onnx demo --precision fp32 --max-drop 0.1": "invalid value: --truth and --max-drop need --precision fp16 "
    "or int8",
    "verify demo": "invalid value for --against: give a checkpoint, or its name, such as demo",
    "predict demo x.png --score-threshold": "option '--score-threshold' requires an argument",
    "show demo a": "got unexpected extra argument (a)",
    "show demo a b": "got unexpected extra arguments (a b)",
    "--show-completion foosh": "no completion for 'foosh': expected bash, zsh, fish or powershell",
}


@pytest.mark.parametrize("quiet", ["", " --quiet"])
@pytest.mark.parametrize("line", WRONG)
def test_wrong_usage_is_one_line(line, quiet):
    """No box, no usage text; the same in both programs."""
    for program in APPS:
        words = line.replace("export ", "") if program == "maskrcnn-export" else line
        if program == "maskrcnn-export" and line.split()[0] in ("predict", "data", "evalute"):
            continue
        if quiet and line.startswith(("fly", "evalute", "--", "predict demo x.png --score")):
            continue
        result = call(program, *words.split(), *quiet.split())
        assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"error: {WRONG[line]}\n")


@pytest.mark.parametrize("words", COMMANDS)
def test_no_parameter_is_refused_in_more_than_a_line(words):
    for parameter in COMMANDS[words].params:
        if parameter.param_type_name == "option" and not parameter.is_flag:
            result = call(words, parameter.opts[0])
            assert (result.exit_code, result.stdout) == (2, "")
            assert re.fullmatch(r"error: [a-z][^\n]*\n", result.stderr)


def test_no_text_suggests_the_commands_of_the_other_program():
    """Docs say `maskrcnn export onnx`, and so does every message."""
    names = "|".join(words.split()[-1] for words in COMMANDS)
    for package in ("runtime", "maskrcnn", "export"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    assert not re.search(rf"maskrcnn-export\s+({names})\b|'maskrcnn-export $", node.value), path


def test_the_former_name_of_show_says_so(files):
    said = "... the command 'inspect' is called 'show' now\n"
    for options, expected in ([], said), (["--json"], said), (["--quiet"], ""):
        assert call("maskrcnn-export inspect", "demo.onnx", *options).stderr == expected


FAILURES = {
    "maskrcnn fly": (2, "UsageError"),
    "maskrcnn predict": (2, "MissingParameter"),
    "maskrcnn predict missing.onnx good.png -o out": (4, "ArtifactNotFoundError"),
    "maskrcnn predict demo missing.png -o out": (5, "ImageError"),
    "maskrcnn predict demo good.png -o good.png": (6, "OutputError"),
    "maskrcnn predict demo good.png broken.png -o out": (5, "ImageError"),
    "maskrcnn data check missing.json": (1, "DatasetError"),
    "maskrcnn train data.json -o out --workers 2": (2, "ArgumentError"),
    "maskrcnn-export onnx demo -o out.onnx --precision int8": (2, "BadParameter"),
    "maskrcnn-export edit demo.onnx --rename unicorn=horse": (2, "EditError"),
    "maskrcnn-export verify demo.onnx --against demo": (1, "ParityError"),
    "maskrcnn doctor": (3, "Problem"),
}


@pytest.mark.parametrize("line", FAILURES)
def test_json_of_a_command_that_fails(line, files, quick, monkeypatch):
    (files / "broken.png").write_bytes(b"no image")
    monkeypatch.setitem(vars(export), "verify_artifact", lambda *_, **__: replace(VERDICT, cases=()))
    problem = DoctorFinding("problem", "cuda", "is missing")
    monkeypatch.setattr("export.doctor.examine.examine", lambda *_: [problem])
    code, kind = FAILURES[line]
    result = call(line, "--json")
    found = document_of(result)
    assert result.exit_code == found["exit_code"] == code
    assert found["error"]["type"] == kind
    assert found["error"]["message"]
    assert result.exit_code == call(line).exit_code
    if "broken" in line:
        assert (found["images"], len(found["failures"])) == (1, 1)


def test_json_of_a_bug_and_of_ctrl_c(files, monkeypatch):
    for error, code, kind in ((RuntimeError("oh"), 1, "RuntimeError"), (SystemExit(130), 130, "Interrupted")):

        def fail(*_, error=error, **__):
            raise error

        monkeypatch.setattr("maskrcnn.data.synthetic.shapes.write_shapes", fail)
        result = call("maskrcnn data shapes", "x", "--json")
        found = document_of(result)
        assert (result.exit_code, found["exit_code"], found["error"]["type"]) == (code, code, kind)


def test_no_document_without_a_command():
    for arguments in (["predict", "--help", "--json"], ["--version"], ["predict", "--", "--json"]):
        assert "exit_code" not in call("maskrcnn", *arguments).stdout


def test_json_where_the_command_line_is_not_installed():
    code = "import sys; sys.modules['typer'] = None; from maskrcnn.__main__ import main; main()"
    command = [sys.executable, "-c", code, "predict", "demo", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    found = json.loads(done.stdout)
    assert done.returncode == found["exit_code"] == 3
    assert found["error"]["type"] == "MissingPackageError"


def test_warnings_are_told_in_every_mode(files, quick, monkeypatch):
    def examine(*_):
        console.warning("look out")
        return [DoctorFinding("ok", "python", "3")]

    monkeypatch.setattr("export.doctor.examine.examine", examine)
    for options in (["--json"], ["--quiet"], ["--json", "--quiet"]):
        result = call("maskrcnn-export doctor", *options)
        assert result.stderr == "warning: look out\n"
        if "--json" in options:
            assert document_of(result)["warnings"] == ["look out"]


def test_predict_says_where_the_images_are(files):
    line = ["predict", "demo.onnx", "good.png", "-o", "out", "--overlay", "--splash"]
    found = document_of(call("maskrcnn", *line, "--json"))
    assert found["written"] == ["out/results.json", "out/results.csv", "out/overlay", "out/splash"]
    assert "wrote out/overlay\nwrote out/splash\n" in call("maskrcnn", *line).stdout
