"""Results to tables: ratios, the floor, and the newer of two runs."""

import json

import pytest

from benchmarks.charts import figures
from benchmarks.report import filled, floor_of, rate, slug
from benchmarks.results import read_groups
from benchmarks.turns import Clock, Replay, take_turns


def write(folder, date, entries):
    benchmarks = [
        {"group": group, "name": "test_case", "extra_info": {"case": case} | facts, "stats": {"median": t, "iqr": 0.1}}
        for group, case, t, facts in entries
    ]
    content = {"datetime": f"{date}T12:00:00", "machine": {"cpu": "X", "cores": 2, "python": "3.11"}}
    content |= {"benchmarks": benchmarks, "versions": {"torch": "2.0"}}
    (folder / f"{date}-run.json").write_text(json.dumps(content))


def test_floor_is_work_at_the_best_rate_of_the_same_run(tmp_path):
    products = [("p", "NumPy, product", 0.5, {"GFLOP": 100}), ("p", "ONNX Runtime, product", 0.8, {"GFLOP": 100})]
    network = ("n", "ours, ONNX Runtime fp32", 3.0, {"GFLOP": 500})
    write(tmp_path, "2026-01-01", [network, ("n", "torchvision eager", 6.0, {}), *products])
    write(tmp_path, "2026-01-02", [("q", "NumPy, product", 0.1, {"GFLOP": 100})])  # another run, another machine
    groups = read_groups(tmp_path)
    assert [row.kind for row in groups["n"].rows] == ["ours", "other"]
    assert [rate(row) for row in groups["p"].rows] == [200.0, 125.0]
    assert floor_of(groups["n"], groups) == 2.5
    assert floor_of(groups["p"], groups) is None


def test_newer_run_of_a_group(tmp_path):
    for date, seconds in (("2026-01-02", 2.0), ("2026-01-01", 1.0)):
        write(tmp_path, date, [("n", "a", seconds, {})])
    group = read_groups(tmp_path)["n"]
    assert (group.source, group.rows[0].median) == ("2026-01-02-run.json", 2.0)
    assert group.setting == "2026-01-02, X, 2 threads"


def test_places_are_filled_anew(tmp_path):
    facts = {"GFLOP": 500}
    write(tmp_path, "2026-01-01", [("n", "ours, ONNX Runtime fp32", 2.0, facts), ("n", "torchvision eager", 5.0, {})])
    text = (
        "A\n<!-- run: n -->\nold\n<!-- end -->\nB\n<!-- table: n -->\n<!-- end -->\n<!-- table: no -->\n<!-- end -->\n"
    )
    once = filled(text, read_groups(tmp_path))
    assert filled(once, read_groups(tmp_path)) == once
    assert once.splitlines() == [
        "A",
        "<!-- run: n -->",
        "2026-01-01, X, 2 threads: Python 3.11, torch 2.0.",
        "<!-- end -->",
        "B",
        "<!-- table: n -->",
        "| n ([raw](results/2026-01-01-run.json)) | s | of ours | GFLOP/s |",
        "| --- | --- | --- | --- |",
        "| ours, ONNX Runtime fp32 | 2.00 | 1.00 | 250 |",
        "| torchvision eager | 5.00 | 2.50 |  |",
        "<!-- end -->",
        "<!-- table: no -->",
        "(no results yet)",
        "<!-- end -->",
    ]


@pytest.mark.parametrize(("value", "text"), [(19.0, "19.0"), (0.911, "0.911"), (199.5, "200"), (2.0, "2.00")])
def test_figures(value, text):
    assert figures(value) == text


def test_slug():
    assert slug("ResNet-50, 1024 x 1024: network") == "resnet-50-1024-x-1024-network"


def test_turns_alternate_and_warm_up():
    order = []
    clocks = take_turns({name: lambda name=name: order.append(name) for name in "ab"}, 3)
    assert order == ["a", "b"] * 5
    assert [len(clock.wall) for clock in clocks.values()] == [3, 3]


def test_replay_takes_the_seconds_it_is_told():
    class Benchmark:
        def __init__(self, timer):
            self.timer, self.extra_info, self.seconds = timer, {}, []

        def pedantic(self, call, rounds):
            for _ in range(rounds):
                begin = self.timer()
                call()
                self.seconds.append(self.timer() - begin)

    replay, clock = Replay(), Clock(lambda: None)
    clock.wall, clock.cpu = [0.5, 2.0, 0.25], [1.0, 4.0, 0.5]
    benchmark = Benchmark(replay.timer)
    replay.report(benchmark, clock)
    assert benchmark.seconds == pytest.approx([0.5, 2.0, 0.25])
    assert benchmark.extra_info == {"cpu_s": 1.0, "samples": [0.5, 2.0, 0.25]}
