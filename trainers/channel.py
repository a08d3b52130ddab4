"""A bounded queue between one producer and one consumer that either side can end without the other hanging."""

import threading
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Channel(Generic[Item]):
    """Hands items over in order; one at most waits."""

    def __init__(self) -> None:
        self._waiting: deque[Item] = deque()
        self._finished = False
        self._closed = False
        self._changed = threading.Condition()

    def wait_for_room(self) -> bool:
        """Wait until no item waits; False when nobody wants one any more."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting or self._closed)
            return not self._closed

    def put(self, item: Item) -> None:
        """Hand ``item`` over; it is dropped when nobody wants it any more."""
        with self._changed:
            if not self._closed:
                self._waiting.append(item)
                self._changed.notify_all()

    def get(self) -> Item | None:
        """Return the next item, waiting for it; None when there is none left and there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._finished or self._closed)
            if self._closed or not self._waiting:
                return None
            self._changed.notify_all()
            return self._waiting.popleft()

    def finish(self) -> None:
        """Say that no item follows; those that wait can still be had."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def close(self) -> None:
        """Say that no item is wanted; those that wait are dropped."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
