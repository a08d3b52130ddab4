"""The channel between the assembling thread and the consumer."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from graphsys.trainers.channel import Channel

LIMIT_S = 10


@pytest.fixture
def channel() -> Channel[int]:
    return Channel()


def test_items_come_in_order_and_then_nothing(channel: Channel[int]) -> None:
    def produce() -> None:
        for item in range(50):
            assert channel.wait_for_room()
            channel.put(item)
        channel.finish()

    with ThreadPoolExecutor(1) as pool:
        producing = pool.submit(produce)
        found = [channel.get() for _ in range(51)]
        producing.result(LIMIT_S)
    assert found == [*range(50), None]
    assert channel.get() is None


def test_what_waits_can_be_had_after_the_end(channel: Channel[int]) -> None:
    channel.put(7)
    channel.finish()
    assert channel.get() == 7
    assert channel.get() is None


def test_closing_ends_a_producer_that_waits_for_room(channel: Channel[int]) -> None:
    channel.put(7)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(channel.wait_for_room)
        channel.close()
        assert waiting.result(LIMIT_S) is False
    channel.put(8)
    assert channel.get() is None


def test_finishing_ends_a_consumer_that_waits_for_an_item(channel: Channel[int]) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(channel.get)
        channel.finish()
        assert waiting.result(LIMIT_S) is None


def test_closing_ends_a_consumer_that_waits_for_an_item(channel: Channel[int]) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(channel.get)
        channel.close()
        assert waiting.result(LIMIT_S) is None
