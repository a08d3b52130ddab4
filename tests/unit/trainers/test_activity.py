import threading
import time

import pytest

from graphsys.trainers.activity import Activity


def test_the_seconds_of_all_states_sum_to_the_time_that_passed() -> None:
    started = time.perf_counter()
    activity = Activity(("read", "assemble"))
    for name in ("assemble", "read", "assemble"):
        time.sleep(0.01)
        activity.enter(name)
    found = activity.seconds()
    assert sum(found.values()) == pytest.approx(time.perf_counter() - started, abs=0.01)
    assert found["read"] >= 0.02
    assert found["assemble"] >= 0.01


def test_a_state_that_lasts_counts_up_to_the_moment_of_asking() -> None:
    activity = Activity(("read", "assemble"))
    before = activity.seconds()
    time.sleep(0.01)
    after = activity.seconds()
    assert after["read"] - before["read"] >= 0.01
    assert after["assemble"] == before["assemble"] == 0


def test_another_thread_may_ask_while_states_change() -> None:
    activity = Activity(("read", "assemble"))
    sums: list[float] = []
    asking = threading.Thread(target=lambda: sums.extend(sum(activity.seconds().values()) for _ in range(2000)))
    asking.start()
    while asking.is_alive():
        activity.enter("assemble")
        activity.enter("read")
    asking.join()
    assert sums == sorted(sums)
