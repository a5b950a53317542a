"""An artifact whose verdict failed, is of another graph, or names no graph is not opened, unless the caller says so."""

import json
import pickle
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from bad_artifacts import reseal
from onnx import helper
from sample_metadata import METADATA

from runtime import Predictor, read_metadata
from runtime.artifact import GRAPH_SHA256
from runtime.artifact_files.onnx_file import metadata_entry, read_model, seal
from runtime.artifact_files.protobuf import field
from runtime.artifact_files.read import graph_digest, require_proven
from runtime.artifact_files.savedmodel_folder import seal_folder
from runtime.errors import ArtifactVerdictError

GRAPH = field(7, b"")


@pytest.fixture(params=["onnx", "savedmodel"])
def sealed(request, tmp_path):
    """Write an artifact without a model in it, with this verdict; return its path."""

    def write(verdict, graph=GRAPH, **changes):
        path = tmp_path / f"fruit.{request.param}"
        text = replace(METADATA, format=request.param, verdict=verdict, **changes).to_json()
        if request.param == "onnx":
            path.write_bytes(seal(graph, text))
        else:
            path.mkdir(exist_ok=True)
            (path / "saved_model.pb").write_bytes(graph)
            seal_folder(path, text)
        return path

    return write


def bound(path, **changes):
    """The verdict of a passed parity check of the graph at a path."""
    return {"passed": True, "precision": {}, GRAPH_SHA256: graph_digest(path)} | changes


def refusal(path, **options):
    with pytest.raises(ArtifactVerdictError) as refused:
        Predictor(path, "cpu", **options)
    message = str(refused.value)
    assert str(path) in message
    assert "maskrcnn verify" in message
    assert "require_verdict=False" in message
    return message


def test_a_verdict_of_this_graph_is_accepted(sealed):
    path = sealed({})
    path = sealed(bound(path))
    require_proven(path, read_metadata(path))


@pytest.mark.parametrize("passed", [False, None, 0, 1, "true", [True]], ids=repr)
def test_a_failed_check_is_refused_whatever_the_digest(sealed, passed):
    path = sealed(bound(sealed({}), passed=passed))
    for verify in (True, False):
        assert "parity check failed" in refusal(path, verify_digest=verify)


def test_no_verdict_is_refused(sealed):
    assert "no verdict" in refusal(sealed({}))


@pytest.mark.parametrize("gate", [{}, {"passed": False}, {"passed": "yes"}, None, [1]], ids=repr)
@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_lower_precision_needs_its_gate(sealed, precision, gate):
    verdict = bound(sealed({}), precision=gate)
    assert precision in refusal(sealed(verdict, precision=precision))
    path = sealed(verdict | {"precision": {"passed": True}}, precision=precision)
    require_proven(path, read_metadata(path))


def test_a_verdict_without_a_graph_is_refused(sealed):
    """As older versions wrote it: it may have been copied from anywhere."""
    verdict = bound(sealed({}))
    del verdict[GRAPH_SHA256]
    assert "does not say to which graph" in refusal(sealed(verdict))


@pytest.mark.parametrize("digest", ["", "00", 7, None, ["a"], "\x1b[2J"], ids=repr)
def test_a_made_up_digest_is_refused(sealed, digest):
    message = refusal(sealed({**bound(sealed({})), GRAPH_SHA256: digest}))
    assert "\x1b" not in message
    assert "graph" in message


def test_a_copied_verdict_is_refused(sealed):
    other = field(7, field(2, b"other"))
    verdict = bound(sealed({}, other))
    path = sealed(verdict)
    message = refusal(path)
    assert "another graph" in message
    assert verdict[GRAPH_SHA256][:12] in message
    require_proven(path, read_metadata(path), verify_digest=False)  # the caller wants no digest compared


def test_the_graph_of_a_file_is_all_but_metadata(tmp_path):
    path = tmp_path / "m.onnx"
    digests = set()
    for content in (GRAPH, metadata_entry("note", "x") + GRAPH, seal(GRAPH, "{}"), seal(GRAPH, METADATA.to_json())):
        path.write_bytes(content)
        digests.add(graph_digest(path))
    assert len(digests) == 1
    for content in (GRAPH + GRAPH, field(7, b"\0"), GRAPH + field(8, b""), field(20, b"") + GRAPH, b""):
        path.write_bytes(seal(content, "{}"))
        digests.add(graph_digest(path))
    assert len(digests) == 6


def test_the_graph_of_a_folder_is_all_but_the_manifest_and_extra_files(tmp_path):
    def digest_with(name, content):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return graph_digest(tmp_path)

    first = digest_with("saved_model.pb", b"graph")
    assert digest_with("assets.extra/tf_serving_warmup_requests", b"requests") == first
    seal_folder(tmp_path, "{}")
    assert graph_digest(tmp_path) == first
    others = [
        digest_with(name, b"x") for name in ("variables/variables.index", "note", "assets/words", "saved_model.pb")
    ]
    assert len({first, *others}) == 5


def test_a_changed_graph_is_refused_and_opens_when_the_caller_vouches(onnx_artifact, tmp_path, picture):
    """A node is added, and the file sealed again with the verdict of the artifact that it was."""
    model = onnx.load_model_from_string(read_model(onnx_artifact))
    model.graph.node.append(helper.make_node("Identity", ["images"], ["nobody_reads_this"]))
    path = tmp_path / "forged.onnx"
    path.write_bytes(seal(model.SerializeToString(), read_metadata(onnx_artifact).to_json()))
    assert "another graph" in refusal(path)
    whole = Predictor(onnx_artifact, "cpu")(picture)
    for options in ({"require_verdict": False}, {"verify_digest": False}):
        with Predictor(path, "cpu", **options) as predictor, pickle.loads(pickle.dumps(predictor)) as copy:
            np.testing.assert_array_equal(copy(picture).scores, whole.scores)
    path.write_bytes(model.SerializeToString())
    reseal(path, read_metadata(onnx_artifact).to_json())
    Predictor(path, "cpu").close()


def test_a_verdict_that_failed_opens_only_when_the_caller_vouches(doctored):
    path = doctored(verdict={"passed": False})
    assert "failed" in refusal(path)
    with Predictor(path, "cpu", require_verdict=False) as predictor:
        assert predictor.metadata.verdict["passed"] is False


def test_an_extra_file_of_a_savedmodel_needs_a_seal_but_no_new_verdict(savedmodel_artifact, tmp_path):
    path = shutil.copytree(savedmodel_artifact, tmp_path / "extra")
    (path / "assets.extra").mkdir()
    (path / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"requests")
    seal_folder(path, json.dumps(json.loads(read_metadata(savedmodel_artifact).to_json())))
    Predictor(path, "cpu").close()
