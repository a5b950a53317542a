"""The genuine client of the Open Inference Protocol, tritonclient, against a server in a process of its own."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

OUTPUTS = ("num_detections", "image_sizes", "boxes", "scores", "class_ids", "names", "rles")


@pytest.fixture
def client(server):
    with triton.InferenceServerClient(server.url) as client:
        yield client


def tensor(images):
    given = triton.InferInput("images", [len(images)], "BYTES")
    given.set_data_from_numpy(np.array(images, dtype=object))
    return given


def threshold(value, *, binary=True):
    given = triton.InferInput("score_threshold", [1], "FP32")
    given.set_data_from_numpy(np.array([value], np.float32), binary_data=binary)
    return given


def expected(found):
    """The outputs for some detections."""
    return {
        "num_detections": np.array([len(one) for one in found], np.int32),
        "image_sizes": np.array([one.image_size for one in found], np.int32),
        "boxes": np.concatenate([one.boxes for one in found]),
        "scores": np.concatenate([one.scores for one in found]),
        "class_ids": np.concatenate([one.class_ids for one in found]),
        "names": np.array([name.encode() for one in found for name in one.names], object),
        "rles": np.array([rle["counts"].encode() for one in found for rle in one.rles], object),
    }


def same(answer, found, names=OUTPUTS, *, binary=True):
    wanted = expected(found)
    if not binary:  # JSON has text
        wanted |= {name: np.array([one.decode() for one in wanted[name]], object) for name in ("names", "rles")}
    return all(
        (got := answer.as_numpy(name)).shape == wanted[name].shape
        and (got.size == 0 or got.dtype == wanted[name].dtype)
        and np.array_equal(got, wanted[name])
        for name in names
    )


def ask_in_threads(url, images, found, threads, requests):
    """Threads with a client each; return how many answers came, and how many were right."""

    def ask(thread):
        right = 0
        with triton.InferenceServerClient(url) as client:
            for request in range(requests):
                place = (thread + request) % len(images)
                right += same(client.infer("demo", [tensor([images[place]])]), [found[place]])
        return right

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(ask, range(threads)))


def test_the_comparison_sees_differences(client, images, found):
    answer = client.infer("demo", [tensor(images[:1])])
    assert same(answer, found[:1])
    assert not any(same(answer, [found[0].filter(0.999)], [name]) for name in OUTPUTS if name != "image_sizes")


def test_threads_get_what_the_predictor_finds(server, images, found):
    assert [len(one) > 4 for one in found] == [True, True, True, False]
    assert ask_in_threads(server.url, images, found, threads=8, requests=6) == 48


@pytest.mark.slow
def test_many_threads_get_what_the_predictor_finds(server, images, found):
    assert ask_in_threads(server.url, images, found, threads=8, requests=50) == 400


def test_several_images_in_one_request(client, images, found):
    assert same(client.infer("demo", [tensor(images)]), found)


def test_images_in_one_request_run_in_batches(serve, images, found):
    """A batch may round otherwise than one image, so the numbers are only close."""
    server = serve("--batch-size", "3", "--max-delay", "200")
    with triton.InferenceServerClient(server.url) as client:
        answer = client.infer("demo", [tensor(images[:1] * 6)])
    wanted = expected(found[:1] * 6)
    assert np.array_equal(answer.as_numpy("class_ids"), wanted["class_ids"])
    np.testing.assert_allclose(answer.as_numpy("boxes"), wanted["boxes"], atol=0.01)
    assert 'maskrcnn_batch_size_bucket{le="2.0"} 0.0' in server.ask("/metrics")[2].decode()


@pytest.mark.parametrize("binary", [False, True])
def test_only_what_is_asked_for_comes_as_it_is_asked_for(client, images, found, binary):
    names = ("rles", "scores", "image_sizes", "names")
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
    answer = client.infer("demo", [tensor(images[:2])], outputs=outputs, request_id="number 7")
    assert same(answer, found[:2], names, binary=binary)
    document = answer.get_response()
    assert (document["model_name"], document["model_version"], document["id"]) == ("demo", "1", "number 7")
    assert [output["name"] for output in document["outputs"]] == list(names)
    assert all(("data" not in output) == binary for output in document["outputs"])


@pytest.mark.parametrize("binary", [False, True])
def test_a_higher_threshold_keeps_the_better_detections(client, images, found, binary):
    answer = client.infer("demo", [tensor(images[:2]), threshold(0.999, binary=binary)])
    assert same(answer, [one.filter(np.float32(0.999)) for one in found[:2]])
    assert 0 < len(answer.as_numpy("scores")) < sum(map(len, found[:2]))


@pytest.mark.parametrize("value", [0.4, 1.1, -1, np.nan, np.inf])
def test_other_thresholds_are_refused(client, images, value):
    with pytest.raises(InferenceServerException, match="expected a number from") as refused:
        client.infer("demo", [tensor(images[:1]), threshold(value)])
    assert refused.value.status() == "400"


@pytest.mark.parametrize(
    "asked",
    [{"priority": 1}, {"sequence_id": 5}, {"parameters": {"score_threshold": "0.9"}}, {"query_params": {"a": "b"}}],
    ids=str,
)
def test_what_the_server_does_not_know_is_refused(client, images, asked):
    with pytest.raises(InferenceServerException, match=r"expected (nothing but|none)") as refused:
        client.infer("demo", [tensor(images[:1])], **asked)
    assert refused.value.status() == "400"


def test_what_a_client_may_ask_for(client, images, found):
    outputs = [triton.InferRequestedOutput("scores")]
    assert same(client.infer("demo", [tensor(images[:1])], timeout=20_000_000), found[:1])
    assert same(client.infer("demo", [tensor(images[:1])], "1", outputs, "a", timeout=0), found[:1], ["scores"])
    with pytest.raises(InferenceServerException, match="within the timeout of the request") as late:
        client.infer("demo", [tensor(images[:1])], timeout=1)
    assert late.value.status() == "504"


def test_one_bad_image_is_named(client, images):
    with pytest.raises(InferenceServerException, match=r"images\[2\]: the image of 9 bytes is empty or not") as refused:
        client.infer("demo", [tensor([*images[:2], b"no image!", images[3]])])
    assert refused.value.status() == "400"


def test_a_compressed_body_is_refused(client, images):
    with pytest.raises(InferenceServerException, match="not compressed"):
        client.infer("demo", [tensor(images[:1])], request_compression_algorithm="gzip")


def test_what_is_served(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("demo")
    assert client.is_model_ready("demo", "1")
    assert not client.is_model_ready("demo", "2")
    assert not client.is_model_ready("other")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    metadata = client.get_model_metadata("demo", "1")
    assert [(entry["name"], entry["datatype"], entry["shape"]) for entry in metadata["inputs"]] == [
        ("images", "BYTES", [-1]),
        ("score_threshold", "FP32", [1]),
    ]
    assert [entry["name"] for entry in metadata["outputs"]] == list(OUTPUTS)
    assert metadata["parameters"]["class_names"] == ["BG", "square", "circle", "triangle"]
    with pytest.raises(InferenceServerException, match="there is no such model: expected demo, version 1") as refused:
        client.infer("other", [tensor([b""])])
    assert refused.value.status() == "404"
