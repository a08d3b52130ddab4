"""Puts requests that come at about the same time together, so that one pass over a network serves many."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from graphsys.core.errors import GraphsysError
from graphsys.deploy.serving.problems import Problem

Item = TypeVar("Item")
Reply = TypeVar("Reply")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """How much is put together, and how long is waited for more."""

    size: int  # of a batch, in the items' own measure; an item beyond it goes alone
    delay_s: float  # that the first item of a batch waits for others
    waiting: int  # items in the queue; one more is refused


@dataclass(slots=True, kw_only=True, eq=False)
class _Waiting(Generic[Item, Reply]):
    key: str
    item: Item
    size: int
    deadline: float  # of the loop's clock
    reply: "asyncio.Future[Reply]"


class Batcher(Generic[Item, Reply]):
    """Runs ``work`` on batches, one at a time, in a thread of its own.

    Items of different keys never share a batch. Where a batch fails, its items are run one by one, so that only those
    fail that are at fault. Belongs to one event loop.

    Args:
        work: Returns the replies to items of one key, in their order; called in the thread.
        observe: Is told the size of every batch.
    """

    def __init__(
        self,
        work: Callable[[str, Sequence[Item]], Sequence[Reply]],
        limits: BatchLimits,
        *,
        observe: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._work = work
        self._limits = limits
        self._observe = observe
        self._queue: deque[_Waiting[Item, Reply]] = deque()
        self._more = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="graphsys-batch")
        self._runner: asyncio.Task[None] | None = None

    async def submit(self, key: str, item: Item, *, size: int, within_s: float) -> Reply:
        """Return the reply to ``item``.

        Args:
            key: Only items of the same key are put together, such as a table's version.
            size: What the item adds to a batch.
            within_s: How long it may wait for its turn.

        Raises:
            Problem: 429, too many items wait; 503, its turn did not come in time; or what ``work`` raised.
            GraphsysError: What ``work`` raised.
        """
        if len(self._queue) >= self._limits.waiting:
            raise Problem(
                429, f"{len(self._queue)} requests wait for the network already", headers={"Retry-After": "1"}
            )
        loop = asyncio.get_running_loop()
        waiting: _Waiting[Item, Reply] = _Waiting(
            key=key, item=item, size=size, deadline=loop.time() + within_s, reply=loop.create_future()
        )
        self._queue.append(waiting)
        self._more.set()
        if self._runner is None or self._runner.done():
            self._runner = loop.create_task(self._run())
        return await waiting.reply

    async def _run(self) -> None:
        """Serve the queue until it is empty."""
        while self._queue:
            await self._wait_for_more()
            batch = self._take()
            if batch:
                self._observe(sum(waiting.size for waiting in batch))
                await self._answer(batch)

    async def _wait_for_more(self) -> None:
        """Let the first item wait until its batch is full or its delay is over."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._limits.delay_s
        while sum(waiting.size for waiting in self._queue) < self._limits.size:
            self._more.clear()
            try:
                async with asyncio.timeout_at(until):
                    await self._more.wait()
            except TimeoutError:
                return

    def _take(self) -> list[_Waiting[Item, Reply]]:
        """Take the first item out of the queue, and those behind it that may share its batch."""
        batch: list[_Waiting[Item, Reply]] = []
        left: deque[_Waiting[Item, Reply]] = deque()
        size, now = 0, asyncio.get_running_loop().time()
        for waiting in self._queue:
            if waiting.reply.done():  # its client is gone
                continue
            if waiting.deadline < now:
                waiting.reply.set_exception(
                    Problem(503, "the request waited too long for the network; ask again", headers={"Retry-After": "1"})
                )
            elif batch and (waiting.key != batch[0].key or size + waiting.size > self._limits.size):
                left.append(waiting)
            else:
                batch.append(waiting)
                size += waiting.size
        self._queue = left
        return batch

    async def _answer(self, batch: list[_Waiting[Item, Reply]]) -> None:
        loop = asyncio.get_running_loop()
        try:
            items = [waiting.item for waiting in batch]
            replies = await loop.run_in_executor(self._thread, self._work, batch[0].key, items)
        except (GraphsysError, Problem) as error:
            if len(batch) == 1:
                _fail(batch, error)
                return
            for waiting in batch:
                await self._answer([waiting])
        except Exception as error:  # noqa: BLE001 - a bug; every request says so, and the queue goes on
            _fail(batch, error)
        else:
            for waiting, reply in zip(batch, replies, strict=True):
                if not waiting.reply.done():
                    waiting.reply.set_result(reply)

    def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown(wait=False)


def _fail(batch: Sequence[_Waiting[Item, Reply]], error: Exception) -> None:
    for waiting in batch:
        if not waiting.reply.done():
            waiting.reply.set_exception(error)
