"""Cases take turns in one process, call by call, so that what else the machine does hits all of them alike.

pytest-benchmark times one case after another. So the turns are timed first, and each case then hands it its seconds,
which it prints, compares and saves like its own.
"""

import os
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from statistics import median
from typing import Any, TypeVar

Name = TypeVar("Name", bound=Hashable)
Call = Callable[[], object]

# The processors this process may use are the threads that every engine gets; `taskset -c 0,1` makes them two.
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

WARM_UPS = 2
ROUNDS = int(os.environ.get("MASKRCNN_BENCHMARK_ROUNDS", "15"))


class Clock:
    """Wall and processor seconds of each call."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def __call__(self) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        self.call()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)

    def release(self) -> None:
        """Forget the call, and with it the network and the memory that it holds."""
        self.call = lambda: None


def take_turns(calls: Mapping[Name, Call], rounds: int) -> dict[Name, Clock]:
    """Time each call once per round, in their order, after rounds that do not count.

    Returns:
        Seconds by the names of the calls.
    """
    clocks = {name: Clock(call) for name, call in calls.items()}
    for number in range(WARM_UPS + rounds):
        for clock in clocks.values():
            if number < WARM_UPS:
                clock.call()
            else:
                clock()
    return clocks


class Replay:
    """A timer, and a call that takes as long as it is told to."""

    def __init__(self) -> None:
        self._now = 0.0
        self._seconds: Iterator[float] = iter(())

    def timer(self) -> float:
        """The seconds told so far."""
        return self._now

    def __call__(self) -> None:
        self._now += next(self._seconds)

    def report(self, benchmark: Any, clock: Clock) -> None:
        """Give the seconds of a clock to a `benchmark` fixture whose timer is this one's."""
        self._seconds = iter(clock.wall)
        benchmark.extra_info["cpu_s"] = median(clock.cpu)
        benchmark.extra_info["samples"] = [round(seconds, 4) for seconds in clock.wall]
        benchmark.pedantic(self, rounds=len(clock.wall))
