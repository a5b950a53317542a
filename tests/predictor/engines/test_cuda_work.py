"""What waits for a recording, and what does not. Recordings of the stand-in's CUDA are in `tests/cuda`."""

import threading
import weakref

import pytest

from runtime.engines.ort.cuda_work import Held, cuda_recording, cuda_work


class Memory:
    """Something that can be seen to be freed."""


def held():
    memory = Memory()
    return Held(memory), weakref.ref(memory)


def in_a_thread(function, *arguments):
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


def test_a_value_is_freed_with_what_holds_it():
    holder, memory = held()
    assert holder.value is memory()
    del holder
    assert memory() is None


@pytest.mark.parametrize("other_thread", [False, True])
def test_a_value_that_is_dropped_during_a_recording_is_freed_after_it(collect, other_thread):
    holder, memory = held()
    holders = [holder]
    del holder
    with cuda_recording():
        if other_thread:
            in_a_thread(holders.clear)
        else:
            holders.clear()
        collect()
        assert memory() is not None
    assert memory() is None


def test_a_value_in_a_cycle_that_the_garbage_collector_finds_in_a_recording_is_freed_after_it(collect):
    holder, memory = held()
    cycle = [holder]
    cycle.append(cycle)
    del holder
    with cuda_recording():
        del cycle
        collect()
        assert memory() is not None
    assert memory() is None


def test_a_recording_that_fails_frees_what_was_put_off():
    holder, memory = held()
    holders = [holder]
    del holder
    with pytest.raises(IndexError), cuda_recording():
        (holders.pop(), holders.pop())
    assert memory() is None


@pytest.mark.parametrize("work", [cuda_work, cuda_recording])
def test_an_error_does_not_keep_the_memory_of_what_failed(work):
    found = []

    def fail():
        memory = Memory()
        found.append(weakref.ref(memory))
        try:
            int("none")
        except ValueError as error:
            raise LookupError from error

    with pytest.raises(LookupError) as caught, work():
        fail()
    assert caught.value.__traceback__ is not None
    assert found[0]() is None
