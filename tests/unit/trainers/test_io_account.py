from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from graphsys.trainers.io_account import EpochAccount, epoch_io, total_io, waiting_line
from graphsys.trainers.read_ahead import LoaderStats

SEEN = LoaderStats(
    batches=10, rows_hit=60, rows_fetched=40, rows_traced=22, rows_bound=20, useful_bytes=1000, read_bytes=1100,
    wait_read_s=1.0, wait_assemble_s=0.5, wait_transfer_s=0.0, wait_producer_s=2.5,
)  # fmt: skip
NOWHERE = {
    "device_bytes_read": 1200, "device_bytes_written": 5, "disk_bytes_read": None, "disk_bytes_written": None,
}  # fmt: skip


def account(mode: str = "packed", seconds: float = 10.0, **changes: Any) -> dict[str, Any]:
    return epoch_io({**asdict(SEEN), **NOWHERE, **changes}, mode, seconds)


def test_the_shares_of_an_epoch_sum_to_one() -> None:
    found = account()
    assert found["share"] == pytest.approx(
        {"read": 0.1, "assemble": 0.05, "transfer": 0.0, "producer": 0.25, "step": 0.6}
    )
    assert sum(found["share"].values()) == pytest.approx(1)
    # Waits are measured on their own; however they round, no share is negative.
    assert account(seconds=3.9)["share"]["step"] >= 0


@pytest.mark.parametrize(
    ("mode", "rows"),
    [
        ("packed", {"host_cache": 60, "window": 40}),
        ("cached", {"host_cache": 60, "store": 40}),
        ("direct", {"memory": 60, "store": 40}),
        ("memory", {"memory": 60, "store": 40}),
    ],
)
def test_rows_are_named_by_the_tier_that_served_them(mode: str, rows: dict[str, int]) -> None:
    assert account(mode)["rows"] == rows


def test_rows_are_compared_with_the_bound_only_where_it_is_known() -> None:
    assert account()["rows_over_bound"] == pytest.approx(1.1)
    assert account(rows_bound=0)["rows_over_bound"] is None


def test_an_epoch_counts_what_happened_in_it_and_not_what_happened_between(tmp_path: Path) -> None:
    following = EpochAccount(tmp_path, LoaderStats())
    following.take(LoaderStats(batches=3, wait_read_s=0.5))
    following.take(LoaderStats(batches=4, wait_read_s=0.75))
    assert following.saved()["batches"] == 4
    assert following.close("packed", 1.0)["wait_s"]["read"] == pytest.approx(0.75)
    following.restart(LoaderStats(batches=9))  # five batches of a validation, say
    following.take(LoaderStats(batches=11))
    assert following.close("packed", 1.0)["batches"] == 2


def test_an_interrupted_epoch_goes_on_with_what_it_had(tmp_path: Path) -> None:
    first = EpochAccount(tmp_path, LoaderStats())
    first.take(LoaderStats(batches=3, rows_hit=5))
    second = EpochAccount(tmp_path, LoaderStats(), first.saved())
    second.take(LoaderStats(batches=4, rows_hit=1))
    found = second.close("packed", 1.0)
    assert (found["batches"], found["rows"]["host_cache"]) == (7, 6)


def test_a_disk_that_cannot_be_followed_stays_unknown(tmp_path: Path) -> None:
    following = EpochAccount(tmp_path, LoaderStats(), {**asdict(SEEN), **NOWHERE})
    following.take(LoaderStats())
    found = following.close("packed", 1.0)
    assert found["disk_bytes_read"] is None
    assert found["device_bytes_read"] >= 1200


def test_the_total_weighs_shares_by_seconds_and_adds_the_rest() -> None:
    epochs = [account(seconds=10.0), account(seconds=40.0, rows_bound=0)]
    found = total_io(epochs, [10.0, 40.0])
    assert found["batches"] == 20
    assert found["rows"] == {"host_cache": 120, "window": 80}
    assert found["rows_over_bound"] == pytest.approx(1.1)
    assert found["share"]["producer"] == pytest.approx(5 / 50)
    assert sum(found["share"].values()) == pytest.approx(1)
    assert found["disk_bytes_read"] is None
    assert total_io([], []) == {}


def test_a_training_that_waits_says_for_what_the_longest_first() -> None:
    assert waiting_line(account(), 2, 10.0) == (
        "epoch 3: training waited 4.0 s of 10.0 s (40 %): 2.5 s for the next window to be sampled and packed, "
        "1.0 s for batches to be read, 0.50 s for rows to be put together"
    )


@pytest.mark.parametrize("seconds", [100.0, 81.0])
def test_a_training_that_hardly_waits_says_nothing(seconds: float) -> None:
    assert waiting_line(account(seconds=seconds), 0, seconds) is None


def test_short_waits_are_not_worth_a_line() -> None:
    short: dict[str, Any] = {f"wait_{name}_s": 0.1 for name in ("read", "assemble", "transfer", "producer")}
    assert waiting_line(account(seconds=1.0, **short), 0, 1.0) is None
