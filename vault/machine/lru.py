"""What was used last, kept while it fits: the one cache in memory that forgets the oldest first.

Where a pure function of hashable arguments is remembered by count, `functools.lru_cache` does.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


class Recent(Generic[_K, _V]):
    """What was used last of what can be had again. Thread-safe.

    Args:
        limit: The most that is kept, by weight.
        weigh: What a value counts for; 1 each unless said.
        least: So many values are kept however heavy they are.
        release: Called with each value that goes.
    """

    def __init__(
        self,
        limit: int,
        *,
        weigh: Callable[[_V], int] = lambda _: 1,
        least: int = 0,
        release: Callable[[_V], object] = lambda _: None,
    ) -> None:
        self._limit = limit
        self._weigh = weigh
        self._least = least
        self._release = release
        self._items: OrderedDict[_K, _V] = OrderedDict()
        self._lock = threading.Lock()
        self.weight = 0  # of what is kept

    def __len__(self) -> int:
        """How many values are kept."""
        return len(self._items)

    def __contains__(self, key: _K) -> bool:
        """Whether it is kept; does not count as use."""
        return key in self._items

    def get(self, key: _K) -> _V | None:
        """The value, which is now the one used last; None if it is not kept."""
        with self._lock:
            found = self._items.get(key)
            if found is not None:
                self._items.move_to_end(key)
            return found

    def put(self, key: _K, value: _V) -> None:
        """Keep a value, in place of the one before; the oldest go while all weighs too much."""
        with self._lock:
            self._drop(key)
            self._items[key] = value
            self.weight += self._weigh(value)
            while self.weight > self._limit and len(self._items) > self._least:
                self._drop(next(iter(self._items)))

    def forget(self, key: _K) -> None:
        """Let one go, if it is kept."""
        with self._lock:
            self._drop(key)

    def clear(self) -> None:
        """Let all go."""
        with self._lock:
            for key in tuple(self._items):
                self._drop(key)

    def _drop(self, key: _K) -> None:
        value = self._items.pop(key, None)
        if value is not None:
            self.weight -= self._weigh(value)
            self._release(value)
