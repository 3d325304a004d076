"""Ctrl-C and SIGTERM as a question that a long loop asks between two steps."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import Any


@contextmanager
def signals() -> Iterator[Callable[[], int]]:
    """Give a function that returns the signal that asked to stop, or 0.

    A second signal ends the process as it would have without this. Outside the main thread,
    which alone can receive signals, the answer is always 0.
    """
    received: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(number, before[number])

    if current_thread() is main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    try:
        yield lambda: received[0] if received else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
