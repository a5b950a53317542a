"""What `maskrcnn-export triton` writes: configurations that Triton accepts, and networks that compute the same."""

import json
import shutil
from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
from fake_artifacts import VERDICT, metadata, write_artifact
from google.protobuf import json_format, text_format
from onnxruntime_backend.model import check_config
from tritonclient.grpc.model_config_pb2 import ModelConfig
from typer.testing import CliRunner

from export.cli import app
from export.edit import edit_artifact
from export.errors import ConversionError, LayoutError
from export.publish import publish
from export.serving.text_proto import Word, text_proto
from export.serving.triton import TritonOptions, write_triton_repository
from runtime import Predictor, read_metadata
from runtime.artifact import OUTPUT_NAMES
from runtime.artifact_files.read import recorded_digest
from runtime.errors import ArtifactCorruptError, ArtifactError, ArtifactVerdictError, OutputError

BATCHES = (0, -1, 2**31, 3_000_000_000, 2.5, True)
THREADS = (-1, 4097, 99_999_999_999, 1.5, True)
SUFFIXES = ("", "_before", "_net", "_after", "_net_thresholds")


def configured(folder):
    return text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), ModelConfig())


def tensors(fields):
    return {each.name: (ModelConfig.DESCRIPTOR, each.data_type, list(each.dims))[1:] for each in fields}


def feeds(predictor, picture, count):
    prepared = [predictor.prepare(picture[row * 8 :]) for row in range(count)]
    windows = np.array([letterbox.window for letterbox, _ in prepared], np.float32)
    return {"images": np.stack([image for _, image in prepared]), "windows": windows}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_configuration_has_the_name_the_digest_and_one_version(repository, packaged, suffix):
    config = configured(repository / f"shapes{suffix}")
    assert config.name == f"shapes{suffix}"
    assert config.parameters["maskrcnn_sha256"].string_value == recorded_digest(packaged)
    assert config.version_policy.latest.num_versions == 1
    assert (repository / f"shapes{suffix}" / "1").is_dir()
    assert all(each.dims for each in (*config.input, *config.output))  # Triton refuses a shape [ ]
    if suffix in ("_before", "_after"):
        assert (config.backend, config.max_batch_size) == ("python", 0)


def has_an_end(folder):
    """Whether the queues of all models of a repository end; an ensemble has none, and cannot have one."""
    configs = [configured(path.parent) for path in folder.glob("*/config.pbtxt")]
    models = [config for config in configs if not config.HasField("ensemble_scheduling")]
    assert len(models) == len(configs) - 1
    for config in models:
        batching = config.dynamic_batching
        queue = batching.default_queue_policy
        assert (queue.max_queue_size, queue.default_timeout_microseconds) == (128, 30_000_000), config.name
        assert queue.timeout_action == 0, config.name  # REJECT
        gpu = config.max_batch_size > 1 and config.instance_group[0].kind == 1
        assert batching.max_queue_delay_microseconds == (5000 if gpu else 0), config.name  # for nothing else
    return True


@pytest.mark.parametrize(
    "options",
    [
        TritonOptions("a", max_batch=1, thresholds=True),
        TritonOptions("a", max_batch=1, thresholds=True, processor="gpu"),
        TritonOptions("a", thresholds=True, processor="gpu"),
    ],
    ids=["cpu-1", "gpu-1", "gpu-8"],
)
def test_every_queue_has_an_end(packaged, tmp_path, options):
    write_triton_repository(packaged, tmp_path / "out", options=options)
    assert has_an_end(tmp_path / "out")


def test_the_network_batches(repository):
    config = configured(repository / "shapes_net")
    assert (config.backend, config.max_batch_size) == ("onnxruntime", 8)
    assert [(each.count, each.kind) for each in config.instance_group] == [(1, 2)]  # KIND_CPU
    assert has_an_end(repository)
    assert config.parameters["intra_op_thread_count"].string_value == "3"
    assert {each.name for each in config.input} == {"images", "windows"}
    assert not any(each.optional for each in config.input)
    (count,) = [each for each in config.output if each.name == "num_detections"]
    assert (list(count.dims), count.HasField("reshape"), list(count.reshape.shape)) == ([1], True, [])


def test_thresholds_are_optional_scalars_of_a_network_without_batching(repository):
    config = configured(repository / "shapes_net_thresholds")
    assert config.max_batch_size == 0
    optional = {each.name: list(each.dims) for each in config.input if each.optional}
    assert optional == {"score_threshold": [1], "nms_threshold": [1]}
    assert tensors(config.input)["images"][1] == [-1, -1, -1, 3]
    assert tensors(config.output)["num_detections"][1] == [-1]


def test_tensors_of_the_ensemble_fit(repository):
    """What one model returns, the next takes, with the batch axis written out where Triton does not batch."""
    steps = configured(repository / "shapes").ensemble_scheduling.step
    assert [step.model_name for step in steps] == ["shapes_before", "shapes_net", "shapes_after"]
    known = tensors(configured(repository / "shapes").input)
    for step in steps:
        config = configured(repository / step.model_name)
        batch = [1] if config.max_batch_size else []
        for described in config.input:
            assert known[step.input_map[described.name]] == (described.data_type, batch + list(described.dims))
        for described in config.output:
            known[step.output_map[described.name]] = described.data_type, batch + list(described.dims)
    assert known["detections"] == tensors(configured(repository / "shapes").output)["detections"]


def test_warm_up_files_have_the_bytes_of_their_shapes(repository):
    for suffix, batch in (("_net", 1), ("_net_thresholds", 0)):
        folder = repository / f"shapes{suffix}"
        (warm_up,) = configured(folder).model_warmup
        assert warm_up.batch_size == batch
        assert set(warm_up.inputs) == {"images", "windows"}
        for name, described in warm_up.inputs.items():
            size = 1 if name == "images" else 4
            assert (folder / "warmup" / described.input_data_file).stat().st_size == np.prod(described.dims) * size


@pytest.mark.parametrize("suffix", ["_net", "_net_thresholds"])
def test_the_real_backends_rules_hold(repository, suffix):
    folder = repository / f"shapes{suffix}"
    session = ort.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    config = json_format.MessageToDict(configured(folder), preserving_proto_field_name=True)
    check_config(config, session)
    wrong = []
    for place, change in (
        ("input", {"dims": ["-1", "-1"]}),
        ("input", {"data_type": "TYPE_INT32"}),
        ("input", {"name": "other"}),
        ("input", {"optional": suffix == "_net"}),
        ("output", {"dims": ["-1", "9"]}),
    ):
        broken = json.loads(json.dumps(config))
        broken[place][0] = {**broken[place][0], **change}
        broken[place][0].pop("reshape", None)
        if broken[place][0].get("optional") is not False:
            wrong.append(broken)
    for broken in wrong:
        with pytest.raises((ValueError, KeyError)):
            check_config(broken, session)


def test_networks_compute_what_the_artifact_computes(repository, packaged, picture):
    with Predictor(packaged, "cpu") as predictor:
        inputs = feeds(predictor, picture, 3)
        expected = predictor.run(**inputs)
        middle = np.median(expected["scores"][0, : expected["num_detections"][0]])
        predictor.score_threshold = float(middle)
        strict = predictor.run(**inputs)
    assert strict["num_detections"].sum() < expected["num_detections"].sum()
    for suffix in ("_net", "_net_thresholds"):
        path = repository / f"shapes{suffix}" / "1" / "model.onnx"
        with Predictor(path, "cpu") as served:  # which accepts its digest and verdict
            found = served.run(**inputs)
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        alone = dict(zip(OUTPUT_NAMES, session.run(OUTPUT_NAMES, inputs), strict=True))
        for name in OUTPUT_NAMES:
            np.testing.assert_array_equal(found[name], expected[name])
            np.testing.assert_array_equal(alone[name], expected[name])
    given = {"score_threshold": np.array(middle, np.float32)}
    np.testing.assert_array_equal(session.run(["scores"], inputs | given)[0], strict["scores"])


def test_networks_say_where_they_come_from(repository, packaged):
    found = read_metadata(repository / "shapes_net" / "1" / "model.onnx")
    assert (found.thresholds, found.verdict["passed"]) == ("constants", True)
    assert recorded_digest(packaged) in found.edits[-1]
    assert read_metadata(repository / "shapes_net_thresholds" / "1" / "model.onnx").thresholds == "inputs"


def test_thresholds_are_those_of_the_metadata(packaged, tmp_path, picture):
    with Predictor(packaged, "cpu") as predictor:
        scores = predictor(picture).scores
    edited, middle = tmp_path / "edited.onnx", float(scores[len(scores) // 2])
    edit_artifact(packaged, edited, score_threshold=middle)
    write_triton_repository(edited, tmp_path / "out")
    with Predictor(tmp_path / "out" / "edited_net" / "1" / "model.onnx", "cpu") as served:
        assert served.score_threshold == middle
        np.testing.assert_array_equal(served(picture).scores, scores[scores >= middle])
    assert not (tmp_path / "out" / "edited_net_thresholds").exists()


def test_an_artifact_with_constants_is_served_as_it_is(repository, tmp_path):
    constant = repository / "shapes_net" / "1" / "model.onnx"
    write_triton_repository(constant, tmp_path / "out", options=TritonOptions("again"))
    assert (tmp_path / "out/again_net/1/model.onnx").read_bytes() == constant.read_bytes()
    with pytest.raises(LayoutError, match="are constants in its graph"):
        write_triton_repository(constant, tmp_path / "no", options=TritonOptions(thresholds=True))
    assert not (tmp_path / "no").exists()


def test_an_older_artifact_with_defaults(repository, tmp_path, picture):
    older = repository / "shapes_net_thresholds" / "1" / "model.onnx"
    write_triton_repository(older, tmp_path / "out", options=TritonOptions("older", thresholds=True))
    assert (tmp_path / "out/older_net_thresholds/1/model.onnx").read_bytes() == older.read_bytes()
    session = ort.InferenceSession(tmp_path / "out/older_net/1/model.onnx", providers=["CPUExecutionProvider"])
    assert not session.get_overridable_initializers()


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch_is_the_largest(fixed, tmp_path, batch):
    path = fixed(batch)
    write_triton_repository(path, tmp_path / "out", options=TritonOptions("fixed"))
    config = configured(tmp_path / "out" / "fixed_net")
    assert config.max_batch_size == batch
    assert has_an_end(tmp_path / "out")
    assert tensors(config.input)["images"][1] == [256, 256, 3]
    assert [each.kind for each in config.instance_group] == [1]  # KIND_GPU, by the target
    assert "intra_op_thread_count" not in config.parameters
    session = ort.InferenceSession(tmp_path / "out/fixed_net/1/model.onnx", providers=["CPUExecutionProvider"])
    check_config(json_format.MessageToDict(config, preserving_proto_field_name=True), session)
    for asked in (batch + 1, 8):
        with pytest.raises(LayoutError, match=f"made for batches of {batch}"):
            write_triton_repository(path, tmp_path / "no", options=TritonOptions(max_batch=asked))
    assert not (tmp_path / "no").exists()


def test_the_processor_can_be_chosen(packaged, tmp_path):
    write_triton_repository(packaged, tmp_path / "out", options=TritonOptions("gpu", max_batch=1, processor="gpu"))
    config = configured(tmp_path / "out" / "gpu_net")
    assert [each.kind for each in config.instance_group] == [1]
    assert config.max_batch_size == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (TritonOptions("a b"), "'a b' cannot be in a URL"),
        (TritonOptions("../a"), "cannot be in a URL"),
        (TritonOptions(""), "cannot be in a URL"),
        (TritonOptions("_a"), "begins with a letter or digit; give --name"),
        (TritonOptions("\N{LATIN SMALL LETTER E WITH ACUTE}"), "begins with a letter or digit; give --name"),
        (TritonOptions("a", processor="tpu"), "processor is 'tpu'"),
        *((TritonOptions("a", max_batch=n), "the largest batch is .*: expected an integer from 1") for n in BATCHES),
        *((TritonOptions("a", threads=n), "threads is .*: expected an integer from 0 to 4096; 0") for n in THREADS),
    ],
)
def test_options_out_of_range(packaged, tmp_path, options, message):
    with pytest.raises(LayoutError, match=message):
        write_triton_repository(packaged, tmp_path / "out", options=options)
    assert list(tmp_path.iterdir()) == []


def test_the_largest_numbers_that_triton_can_read(packaged, tmp_path):
    options = TritonOptions("a", max_batch=2**31 - 1, threads=4096)
    write_triton_repository(packaged, tmp_path / "out", options=options)
    config = configured(tmp_path / "out" / "a_net")  # a parser of protocol buffers refuses more
    assert config.max_batch_size == 2**31 - 1
    assert config.parameters["intra_op_thread_count"].string_value == "4096"


def test_threads_are_not_for_a_gpu(packaged, fixed, tmp_path):
    for path, processor in ((packaged, "gpu"), (fixed(1), None)):
        with pytest.raises(LayoutError, match=r"threads is 3, and the network .* GPU.* leave out --threads"):
            write_triton_repository(path, tmp_path / "no", options=TritonOptions(processor=processor, threads=3))
        assert not (tmp_path / "no").exists()
    options = TritonOptions("fixed", processor="cpu", threads=3)
    write_triton_repository(fixed(1), tmp_path / "out", options=options)
    assert configured(tmp_path / "out/fixed_net").parameters["intra_op_thread_count"].string_value == "3"


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("_mine", "mine"),
        ("-._mine", "mine"),
        ("\N{LATIN SMALL LETTER E WITH ACUTE}t\N{LATIN SMALL LETTER E WITH ACUTE} 2", "t__2"),
        ("\N{CJK UNIFIED IDEOGRAPH-6A21}-v2", "v2"),
        ("(copy)", "copy_"),
        (".hidden", "hidden"),
    ],
)
def test_the_usual_name_is_allowed(repository, tmp_path, stem, name):
    path = shutil.copy(repository / "shapes_net/1/model.onnx", tmp_path / f"{stem}.onnx")  # written as it is
    assert write_triton_repository(path, tmp_path / "out")[0] == name


def test_a_file_name_without_letters_needs_a_name(repository, tmp_path):
    path = shutil.copy(repository / "shapes_net/1/model.onnx", tmp_path / "\N{CJK UNIFIED IDEOGRAPH-6A21}.onnx")
    with pytest.raises(LayoutError, match="begins with a letter or digit; give --name"):
        write_triton_repository(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_artifacts_that_are_not_served(packaged, tmp_path):
    publish(tmp_path / "folder", metadata(True), write_artifact, lambda _path: VERDICT, overwrite=False)
    with pytest.raises(ArtifactError, match="is a SavedModel"):
        write_triton_repository(tmp_path / "folder", tmp_path / "out")
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(packaged.read_bytes()[:-1] + b"0")
    with pytest.raises(ArtifactCorruptError):
        write_triton_repository(damaged, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_artifact_that_is_not_proven_is_not_served(packaged, tmp_path):
    from export.publish import write_onnx
    from runtime.artifact_files.onnx_file import read_model

    path = tmp_path / "unproven.onnx"
    write_onnx(read_model(packaged), path, replace(read_metadata(packaged), verdict={}))
    with pytest.raises(ArtifactVerdictError, match="no verdict"):
        write_triton_repository(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_network_that_computes_other_values_is_not_written(packaged, tmp_path, monkeypatch):
    from onnx import numpy_helper

    original = numpy_helper.from_array
    monkeypatch.setattr(
        numpy_helper, "from_array", lambda array, name=None: original(np.float32(1) - array / 100, name)
    )
    with pytest.raises(ConversionError, match=r"computes other .*num_detections"):
        write_triton_repository(packaged, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_output_is_replaced_only_if_it_is_ours(repository, packaged, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(repository, output)
    with pytest.raises(OutputError, match="already exists"):
        write_triton_repository(packaged, output)
    assert (output / "shapes").is_dir()
    write_triton_repository(packaged, output, overwrite=True)
    assert sorted(path.name for path in output.iterdir()) == [
        "demo",
        "demo_after",
        "demo_before",
        "demo_net",
        "layout.json",
    ]
    foreign = tmp_path / "foreign"
    (foreign / "resnet").mkdir(parents=True)
    with pytest.raises(OutputError, match="never replaced"):
        write_triton_repository(packaged, foreign, overwrite=True)
    assert [path.name for path in foreign.iterdir()] == ["resnet"]


def test_the_command(tmp_path):
    done = CliRunner().invoke(app, ["triton", "demo", "-o", str(tmp_path / "out"), "--thresholds", "--max-batch", "2"])
    assert done.exit_code == 0, done.output
    assert "demo, demo_before, demo_net, demo_after, demo_net_thresholds" in done.output
    assert configured(tmp_path / "out" / "demo_net").max_batch_size == 2
    again = CliRunner().invoke(app, ["triton", "demo", "-o", str(tmp_path / "out")])
    assert again.exit_code == 6
    wrong = CliRunner().invoke(app, ["triton", "demo", "-o", str(tmp_path / "other"), "--name", "a b"])
    assert wrong.exit_code == 2


def test_text():
    """Every kind of value, as the parser of protocol buffers reads it."""
    message = {
        "name": 'quo"te\\',
        "max_batch_size": 3,
        "input": [{"name": "a", "dims": [1, -1], "optional": True, "data_type": Word("TYPE_FP32")}, {"name": "b"}],
        "dynamic_batching": {"preferred_batch_size": []},
    }
    found = text_format.Parse(text_proto(message), ModelConfig())
    assert found == json_format.ParseDict(message, ModelConfig())
