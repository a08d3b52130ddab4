import pytest

from graphsys.trainers.company import Company, Slowdown, shared_cores
from graphsys.trainers.timeline import Part, Timeline, train_beside

ALONE = Slowdown(training=1.0, making=1.0)


def company(training: float = 1.0, making: float = 1.0) -> Company:
    return Company(slowdowns={"sample": Slowdown(training=training, making=making), "pack": ALONE})


def lay_out(batches_s: list[float], makings: list[list[Part]], beside: Company) -> Timeline:
    line = Timeline()
    train_beside(line, batches_s, makings, beside)
    return line


def sampled(seconds: float) -> Part:
    return Part(stage="sample", task="sample", seconds=seconds)


def packed(seconds: float) -> Part:
    return Part(stage="pack", task="pack", seconds=seconds)


def test_training_alone_takes_what_its_windows_take() -> None:
    line = lay_out([3.0, 4.0], [], company())
    assert (line.train, line.sample, line.pack) == (7.0, 0.0, 0.0)


def test_the_slower_of_training_and_making_lets_the_next_window_begin() -> None:
    line = lay_out([10.0, 10.0, 10.0], [[sampled(4.0), packed(3.0)], [sampled(25.0)]], company())
    assert line.train == 10.0 + 25.0 + 10.0
    assert (line.sample, line.pack) == (29.0, 3.0)


def test_both_sides_take_longer_only_while_both_go_on() -> None:
    # Making takes 3 * 2 s beside training, in which training does 6 / 1.5 = 4 of its 10 s.
    line = lay_out([10.0, 0.0], [[sampled(3.0)]], company(training=1.5, making=2.0))
    assert line.sample == pytest.approx(6.0)
    assert line.train == pytest.approx(6.0 + 6.0)
    # Training of 2 s takes 3 s; making does 1.5 s of its 9 s meanwhile, and goes on alone.
    line = lay_out([2.0, 0.0], [[sampled(9.0)]], company(training=1.5, making=2.0))
    assert line.sample == line.train == pytest.approx(3.0 + 7.5)


def test_sampling_for_a_cache_plan_counts_as_packing() -> None:
    line = lay_out([1.0, 1.0], [[Part(stage="pack", task="sample", seconds=2.0)]], company(making=2.0))
    assert line.sample == 0.0
    assert line.pack == pytest.approx(2.5)


def test_the_first_window_pays_for_the_process_that_makes_it() -> None:
    started = Company(slowdowns={"sample": ALONE, "pack": ALONE}, spawn_s=5.0, first_s={"sample": 2.0, "pack": 1.0})
    line = lay_out([1.0, 1.0, 1.0], [[sampled(1.0)], [sampled(1.0)]], started)
    assert (line.sample, line.pack) == (4.0, 1.0)
    assert line.train == 5.0 + 2.0 + 1.0 + 1.0 + 1.0 + 1.0


def test_unrehearsed_both_sides_share_the_cores() -> None:
    free, full = (shared_cores(cores, busy=2.0, sample_threads=2).slowdowns for cores in (8, 2))
    assert free == {"sample": ALONE, "pack": ALONE}
    assert full["sample"] == Slowdown(training=2.0, making=2.0)
    assert full["pack"] == Slowdown(training=1.5, making=1.5)
