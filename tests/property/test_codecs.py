"""What encoding loses, codec by codec."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from graphsys.core.types import Features
from graphsys.storage.codec import CODECS, decode, encode
from graphsys.storage.gather import CpuGather

SHAPES = array_shapes(min_dims=2, max_dims=2, max_side=40)


def rows(limit: float) -> st.SearchStrategy[Features]:
    """Finite rows of any sign and size up to ``limit``, subnormal values among them."""
    return arrays(np.float32, SHAPES, elements=st.floats(-limit, limit, width=32))


@settings(deadline=None)
@given(x=rows(65504.0))
def test_float16_is_off_by_half_a_step_at_most(x: Features) -> None:
    found = decode(encode(x, "float16"), x.shape[1], "float16")
    assert (np.abs(found - x) <= np.maximum(np.abs(x) * 2.0**-11, 2.0**-25)).all()


@settings(deadline=None)
@given(x=rows(float(np.float32(3.38e38))))
def test_bfloat16_is_off_by_half_a_step_at_most(x: Features) -> None:
    found = decode(encode(x, "bfloat16"), x.shape[1], "bfloat16").astype(np.float64)
    assert (np.abs(found - x) <= np.maximum(np.abs(x.astype(np.float64)) * 2.0**-8, 2.0**-134)).all()


@settings(deadline=None)
@given(x=rows(float(np.float32(3.39e38))))
def test_int8_is_off_by_half_a_step_of_its_row_at_most(x: Features) -> None:
    found = decode(encode(x, "int8"), x.shape[1], "int8").astype(np.float64)
    largest = np.abs(x).max(axis=1, keepdims=True).astype(np.float64)
    step = largest / 127
    too_small = step < 2.0**-126  # of a row too small for a scale
    bound = np.where(too_small, largest, step * (0.5 + 1e-4))
    assert (np.abs(found - x) <= bound).all()


@pytest.mark.parametrize("codec", CODECS)
@settings(deadline=None)
@given(x=rows(65504.0), seed=st.integers(0, 100))
def test_a_gather_decodes_as_the_reference_does(codec: str, x: Features, seed: int) -> None:
    raw = encode(x, codec)
    num_rows, dim = x.shape
    source = np.random.default_rng(seed).integers(-num_rows, num_rows, 50).astype(np.int32)
    out = np.empty((50, dim), np.float32)
    CpuGather(dim, codec).gather(raw, raw[::-1].copy(), source, out)
    assert out.tobytes() == decode(raw, dim, codec)[source].tobytes()  # slot ~s of the reversed rows is row s


@pytest.mark.parametrize("codec", CODECS)
@settings(deadline=None)
@given(x=rows(65504.0))
def test_what_was_decoded_is_encoded_to_the_same_values(codec: str, x: Features) -> None:
    once = decode(encode(x, codec), x.shape[1], codec)
    twice = decode(encode(once, codec), x.shape[1], codec)
    assert np.allclose(once, twice, rtol=2.0**-22, atol=0)
