"""Artifacts of every kind that a server may get, made of the packaged demo without an export."""

from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from export.publish import write_onnx
from export.serving.triton import TritonOptions, write_triton_repository
from runtime import read_metadata
from runtime.artifact import GRAPH_SHA256
from runtime.artifact_files.onnx_file import read_model
from runtime.artifact_files.read import graph_digest


@pytest.fixture(scope="session")
def packaged():
    """The packaged `.onnx` file, whose thresholds are inputs."""
    return Path(str(resources.files("maskrcnn").joinpath("demo.onnx")))


@pytest.fixture(scope="session")
def repository(packaged, tmp_path_factory):
    """A repository of it with all networks; copy it before you change it."""
    folder = tmp_path_factory.mktemp("triton") / "repository"
    write_triton_repository(packaged, folder, options=TritonOptions("shapes", thresholds=True, threads=3))
    return folder


@pytest.fixture(scope="session")
def of_bands(packaged, tmp_path_factory):
    """Function that makes an artifact with more channels, of which the first three count, and other metadata."""

    def make(channels, **changes):
        path = tmp_path_factory.mktemp("bands") / "bands.onnx"
        model = onnx.load_model_from_string(read_model(packaged))
        graph, ends = model.graph, [np.array([end], np.int64) for end in (0, 3, 3)]
        for node in graph.node:
            node.input[:] = ["first three" if name == "images" else name for name in node.input]
        names = ["from", "to", "axis"]
        graph.initializer.extend(numpy_helper.from_array(*each) for each in zip(ends, names, strict=True))
        graph.node.insert(0, helper.make_node("Slice", ["images", *names], ["first three"], name="first three"))
        graph.input[0].type.tensor_type.shape.dim[3].dim_value = channels
        metadata = replace(read_metadata(packaged), image_channels=channels, **changes)
        write_onnx(model.SerializeToString(), path, metadata)
        proof = {**metadata.verdict, GRAPH_SHA256: graph_digest(path)}
        write_onnx(model.SerializeToString(), path, replace(metadata, verdict=proof))
        return path

    return make


@pytest.fixture(scope="session")
def fixed(packaged, tmp_path_factory):
    """Function that makes an artifact of one batch size and one image size, as `--target tensorrt` writes it."""

    def make(batch):
        path = tmp_path_factory.mktemp("fixed") / f"batch{batch}.onnx"
        model = onnx.load_model_from_string(read_model(packaged))
        for value in (*model.graph.input, *model.graph.output):
            sides = value.type.tensor_type.shape.dim
            if sides:
                sides[0].dim_value = batch
        for side in model.graph.input[0].type.tensor_type.shape.dim[1:3]:
            side.dim_value = 256
        metadata = replace(read_metadata(packaged), target="tensorrt", input_shape=(batch, 256, 256))
        write_onnx(model.SerializeToString(), path, metadata)
        proof = {**metadata.verdict, GRAPH_SHA256: graph_digest(path)}
        write_onnx(model.SerializeToString(), path, replace(metadata, verdict=proof))
        return path

    return make
