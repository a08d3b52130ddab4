import pytest
import torch

from graphsys.models.dropout import dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_a_share_p_is_dropped_and_the_mean_is_kept(p: float) -> None:
    torch.manual_seed(0)
    out = dropout(torch.ones(1000, 300), p=p, training=True)
    assert float((out == 0).float().mean()) == pytest.approx(p, abs=0.004)
    assert float(out.mean()) == pytest.approx(1, abs=0.01)


def test_kept_entries_are_scaled_alike() -> None:
    out = dropout(torch.full((40, 5), 3.0), p=0.25, training=True)
    assert set(out.flatten().tolist()) == {0.0, 4.0}


def test_the_same_seed_drops_the_same_entries_with_and_without_gradients() -> None:
    x = torch.randn(7, 9)
    torch.manual_seed(5)
    without = dropout(x, p=0.5, training=True)
    torch.manual_seed(5)
    assert torch.equal(without, dropout(x.clone().requires_grad_(), p=0.5, training=True))


def test_the_input_stays_as_it_was() -> None:
    x = torch.ones(50, 4)
    dropout(x, p=0.5, training=True)
    assert torch.equal(x, torch.ones(50, 4))


def test_gradients_pass_through_kept_entries_only() -> None:
    x = torch.ones(30, 30, requires_grad=True)
    out = dropout(x, p=0.5, training=True)
    torch.autograd.backward([out.sum()])
    assert x.grad is not None
    assert torch.equal(x.grad, out.detach())


@pytest.mark.parametrize(("p", "training"), [(0.0, True), (0.9, False)])
def test_nothing_is_dropped_at_share_zero_or_outside_training(p: float, training: bool) -> None:
    x = torch.randn(5, 5)
    assert torch.equal(dropout(x, p=p, training=training), x)


@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (3, 5)])
def test_any_number_of_entries_works(shape: tuple[int, int]) -> None:
    assert dropout(torch.ones(shape), p=0.5, training=True).shape == shape


def test_any_number_of_threads_drops_the_same_entries() -> None:
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            torch.manual_seed(2)
            found.append(dropout(torch.ones(5000, 33), p=0.3, training=True))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_neighbouring_entries_and_other_calls_are_independent() -> None:
    torch.manual_seed(0)
    first, second = (dropout(torch.ones(400_000, 1), p=0.5, training=True).flatten() > 0 for _ in range(2))
    for shift in (1, 2, 64):
        assert float((first[shift:] & first[:-shift]).float().mean()) == pytest.approx(0.25, abs=0.004)
    assert float((first & second).float().mean()) == pytest.approx(0.25, abs=0.004)


def test_a_share_next_to_one_is_no_overflow() -> None:
    assert dropout(torch.ones(10, 10), p=1 - 1e-12, training=True).shape == (10, 10)
