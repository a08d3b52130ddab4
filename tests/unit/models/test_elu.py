import pytest
import torch
from torch import Tensor
from torch.nn import functional

from graphsys.models.elu import elu
from graphsys.trainers.device import exact_torch


def rows(num_rows: int) -> Tensor:
    return torch.randn(num_rows, 37, generator=torch.Generator().manual_seed(num_rows))


@pytest.mark.parametrize("num_rows", [0, 1, 3000])
def test_values_and_gradients_are_those_of_the_formula(num_rows: int) -> None:
    ours, theirs = (rows(num_rows).requires_grad_() for _ in range(2))
    out, expected = elu(ours * 2), functional.elu(theirs * 2)
    assert torch.allclose(out, expected, rtol=1e-6, atol=1e-7)
    torch.autograd.backward([out.square().sum()])
    torch.autograd.backward([expected.square().sum()])
    assert ours.grad is not None
    assert theirs.grad is not None
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)


def test_it_works_in_the_memory_of_its_input_whatever_its_layout() -> None:
    for x in (rows(50), rows(50).double(), rows(50).T):
        expected = functional.elu(x)
        out = elu(x)
        assert torch.allclose(out, expected)
        assert out.data_ptr() == x.data_ptr()


def test_the_bits_do_not_depend_on_the_threads() -> None:
    found = []
    for threads in (1, 2, 3):
        with exact_torch(torch.device("cpu"), threads):
            found.append(elu(rows(5001)))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
