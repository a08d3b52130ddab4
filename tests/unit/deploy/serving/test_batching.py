"""Requests share batches; what fails, waits too long or is given up harms nobody else."""

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from graphsys.core.errors import InputError
from graphsys.deploy.serving.batching import Batcher, BatchLimits
from graphsys.deploy.serving.problems import Problem

LIMITS = BatchLimits(size=4, delay_s=0.05, waiting=8)


class Doubling:
    """Doubles numbers, and remembers the batches; refuses any with 13 in it, and breaks on 666."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, key: str, items: Sequence[int]) -> list[int]:
        assert self.go.wait(20)
        self.batches.append((key, list(items)))
        if 13 in items:
            raise InputError("13 is refused")
        if 666 in items:
            raise ZeroDivisionError
        return [2 * item for item in items]


def answers(
    work: Doubling, asked: list[tuple[str, int]], *, limits: BatchLimits = LIMITS, within_s: float = 20.0
) -> list[Any]:
    async def ask() -> list[Any]:
        batcher: Batcher[int, int] = Batcher(work, limits)
        calls: list[Coroutine[Any, Any, int]] = [
            batcher.submit(key, item, size=1, within_s=within_s) for key, item in asked
        ]
        found = await asyncio.gather(*calls, return_exceptions=True)
        batcher.close()
        return found

    return asyncio.run(ask())


def test_what_comes_together_is_worked_on_together() -> None:
    work = Doubling()
    assert answers(work, [("a", item) for item in range(6)]) == [0, 2, 4, 6, 8, 10]
    assert work.batches == [("a", [0, 1, 2, 3]), ("a", [4, 5])]


def test_a_batch_is_of_one_table_only() -> None:
    work = Doubling()
    assert answers(work, [("old", 1), ("new", 2), ("old", 3), ("new", 4)]) == [2, 4, 6, 8]
    assert work.batches == [("old", [1, 3]), ("new", [2, 4])]


def test_one_request_at_fault_fails_alone() -> None:
    found = answers(Doubling(), [("a", 1), ("a", 13), ("a", 3)])
    assert (found[0], found[2]) == (2, 6)
    assert isinstance(found[1], InputError)


def test_a_bug_is_told_to_those_it_hits_and_the_queue_goes_on() -> None:
    found = answers(Doubling(), [("a", 666), ("b", 2)])
    assert isinstance(found[0], ZeroDivisionError)
    assert found[1] == 4


def test_one_too_many_is_refused_at_once() -> None:
    found = answers(Doubling(), [("a", item) for item in range(9)])
    assert found[:8] == [2 * item for item in range(8)]
    assert isinstance(found[8], Problem)
    assert found[8].status == 429
    assert found[8].headers == {"Retry-After": "1"}


def test_a_request_whose_time_is_over_is_not_worked_on() -> None:
    work = Doubling()
    (found,) = answers(work, [("a", 1)], within_s=-1.0)
    assert isinstance(found, Problem)
    assert found.status == 503
    assert work.batches == []


def test_a_request_that_is_given_up_is_left_out() -> None:
    work = Doubling()

    async def ask() -> int:
        batcher: Batcher[int, int] = Batcher(work, LIMITS)
        left = asyncio.create_task(batcher.submit("a", 1, size=1, within_s=20))
        kept = asyncio.create_task(batcher.submit("a", 2, size=1, within_s=20))
        await asyncio.sleep(0)
        left.cancel()
        try:
            return await kept
        finally:
            batcher.close()

    assert asyncio.run(ask()) == 4
    assert work.batches == [("a", [2])]


def test_the_loop_is_free_while_a_batch_is_worked_on() -> None:
    work = Doubling()
    work.go.clear()

    async def ask() -> int:
        batcher: Batcher[int, int] = Batcher(work, LIMITS)
        asked = asyncio.create_task(batcher.submit("a", 1, size=4, within_s=20))
        await asyncio.sleep(0.01)
        work.go.set()  # reached only because the work is done elsewhere
        try:
            return await asked
        finally:
            batcher.close()

    assert asyncio.run(ask()) == 2


@pytest.mark.parametrize("size", [4, 100])
def test_a_full_batch_does_not_wait(size: int) -> None:
    async def ask() -> float:
        batcher: Batcher[int, int] = Batcher(Doubling(), BatchLimits(size=4, delay_s=20, waiting=8))
        loop = asyncio.get_running_loop()
        started = loop.time()
        await batcher.submit("a", 1, size=size, within_s=20)
        batcher.close()
        return loop.time() - started

    assert asyncio.run(ask()) < 10
