"""The row codecs."""

import numpy as np
import pytest

from graphsys.core.errors import ConfigError, InputError
from graphsys.storage.codec import decode, encode, roundtrip, row_nbytes


def _rows(num_rows: int, dim: int) -> np.ndarray:
    return np.random.default_rng(dim).standard_normal((num_rows, dim)).astype(np.float32)


@pytest.mark.parametrize("dim", [1, 3, 7, 31, 32, 33, 130])
@pytest.mark.parametrize(("codec", "itemsize"), [("float32", 4), ("float16", 2)])
def test_a_row_is_padded_to_the_next_128_bytes(dim: int, codec: str, itemsize: int) -> None:
    nbytes = row_nbytes(dim, codec)
    assert nbytes % 128 == 0
    assert dim * itemsize <= nbytes < dim * itemsize + 128
    raw = encode(_rows(5, dim), codec)
    assert raw.shape == (5, nbytes)
    assert not raw[:, dim * itemsize :].any()


@pytest.mark.parametrize("dim", [1, 33, 130])
def test_float32_is_the_identity(dim: int) -> None:
    rows = _rows(9, dim)
    assert np.array_equal(decode(encode(rows, "float32"), dim, "float32"), rows)


def test_float16_decodes_to_the_nearest_half_of_every_value() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    rows = halves[np.isfinite(halves)].astype(np.float32)[:, None]
    assert np.array_equal(decode(encode(rows, "float16"), 1, "float16"), rows)
    near = _rows(1000, 3)
    assert np.array_equal(decode(encode(near, "float16"), 3, "float16"), near.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("codec", ["float32", "float16"])
def test_a_round_trip_in_place_equals_encoding_and_decoding(codec: str) -> None:
    rows = _rows(50, 7)
    expected = decode(encode(rows, codec), 7, codec)
    roundtrip(rows, codec)
    assert np.array_equal(rows, expected)


@pytest.mark.parametrize("value", [65520.0, -70000.0])
def test_a_value_beyond_float16_is_refused_by_node_and_value(value: float) -> None:
    rows = np.zeros((3, 2), np.float32)
    rows[1, 1] = value
    out = np.ones((3, 128), np.uint8)
    with pytest.raises(InputError, match=rf"feature 1 of node 70 is {value:g}, beyond float16"):
        encode(rows, "float16", node=np.array([60, 70, 80]), out=out)
    assert (out == 1).all()
    with pytest.raises(InputError, match="row 1"):
        roundtrip(rows, "float16")


def test_the_largest_half_is_taken() -> None:
    rows = np.array([[65504.0, -65519.0]], np.float32)
    assert np.array_equal(decode(encode(rows, "float16"), 2, "float16"), [[65504.0, -65504.0]])


def test_rows_are_encoded_into_a_given_buffer() -> None:
    out = np.full((2, 128), 255, np.uint8)
    assert encode(_rows(2, 3), "float32", out=out) is out
    assert not out[:, 12:].any()


def test_no_rows_encode_to_no_bytes() -> None:
    assert encode(np.empty((0, 5), np.float32), "float16").shape == (0, 128)


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(ConfigError, match="'int3' is unknown"):
        row_nbytes(4, "int3")
