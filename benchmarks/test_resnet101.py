"""ResNet-101-FPN in matterport's configuration at 1024 x 1024 on the CPU: how far the network is from the floor.

The floor is its counted operations at the rate of a matrix product in the same run, with which it takes turns.
"""

import pytest

from benchmarks import ours, products
from benchmarks.flops import count_flops
from benchmarks.turns import ROUNDS, Replay, take_turns
from export.convert import to_onnx_graph as onnx_convert

PROPOSALS, DETECTIONS = 1000, 100
REPLAY = Replay()
NETWORK, PRODUCT = "network", "matrix product"
CASES = [(NETWORK, "ours, ONNX Runtime fp32"), (PRODUCT, products.NUMPY), (PRODUCT, products.ORT)]


@pytest.fixture(scope="module")
def turns(tmp_path_factory):
    """Clocks and facts by case."""
    path = tmp_path_factory.mktemp("artifact") / "fp32.onnx"
    model = ours.network()
    converted = onnx_convert.convert(model)
    predictor = ours.onnx_predictor(model, converted.artifact, path, converted.borders)
    feeds = ours.feeds_of(predictor, ours.jpeg())
    assert ours.counts(predictor, feeds) == (PROPOSALS, DETECTIONS)
    flops = sum(count_flops(converted.artifact, feeds).values()) / 1e9
    facts = {name: {"GFLOP": products.GFLOP} for _, name in CASES}
    facts[CASES[0][1]] = {"GFLOP": flops, "proposals": PROPOSALS, "detections": DETECTIONS}
    calls = {CASES[0][1]: ours.run_call(predictor, feeds)} | products.product_calls()
    return {name: (clock, facts[name]) for name, clock in take_turns(calls, ROUNDS).items()}


@pytest.mark.timeout(7200)
@pytest.mark.benchmark(timer=REPLAY.timer)
@pytest.mark.parametrize(("group", "name"), CASES)
def test_case(benchmark, group, name, turns):
    clock, facts = turns[name]
    benchmark.group = f"ResNet-101, matterport, 1024 x 1024: {group}"
    benchmark.extra_info |= {"case": name} | facts
    REPLAY.report(benchmark, clock)
