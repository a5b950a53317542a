"""Make the next items in a thread while the last ones are worked on."""

from collections.abc import Generator, Iterable
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")

_PATIENCE = 0.1  # seconds between looks at whether anybody still wants the items


class _End:
    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def read_ahead(items: Iterable[T], count: int) -> Generator[T]:
    """Yield `items`, made up to `count` ahead in a thread of their own.

    Close it (`contextlib.closing`) where it may not be read to its end: the thread then ends after the item in hand.

    Raises:
        BaseException: Whatever `items` raises, after what came before it.
    """
    queue: Queue[T | _End] = Queue(count)
    unwanted = Event()

    def put(item: T | _End) -> None:
        while not unwanted.is_set():
            try:
                queue.put(item, timeout=_PATIENCE)
            except Full:
                continue
            return

    def fill() -> None:
        end = _End()
        try:
            for item in items:
                put(item)
                if unwanted.is_set():
                    break
        except BaseException as error:  # noqa: BLE001  (it is raised again where the items are read)
            end = _End(error)
        put(end)

    thread = Thread(target=fill, daemon=True, name="read-ahead")
    thread.start()
    try:
        while True:
            try:
                item = queue.get(timeout=_PATIENCE)  # a signal is noticed between two looks
            except Empty:
                continue
            if not isinstance(item, _End):
                yield item
                continue
            if item.error is not None:
                raise item.error
            return
    finally:
        unwanted.set()
        thread.join()
