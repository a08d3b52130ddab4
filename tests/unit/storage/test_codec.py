"""The row codecs."""

import numpy as np
import pytest

from graphsys.core.errors import ConfigError, InputError
from graphsys.storage.codec import CODECS, decode, encode, roundtrip, row_nbytes


def _rows(num_rows: int, dim: int) -> np.ndarray:
    return np.random.default_rng(dim).standard_normal((num_rows, dim)).astype(np.float32)


@pytest.mark.parametrize("dim", [1, 3, 7, 31, 32, 33, 130])
@pytest.mark.parametrize(("codec", "item", "extra"), [("float32", 4, 0), ("float16", 2, 0), ("bfloat16", 2, 0)])
def test_a_row_is_padded_to_the_next_16_bytes(dim: int, codec: str, item: int, extra: int) -> None:
    nbytes = row_nbytes(dim, codec)
    assert nbytes % 16 == 0
    assert dim * item + extra <= nbytes < dim * item + extra + 16
    raw = encode(_rows(5, dim), codec)
    assert raw.shape == (5, nbytes)
    assert not raw[:, dim * item :].any()


@pytest.mark.parametrize(("dim", "nbytes"), [(1, 16), (12, 16), (13, 32), (128, 144)])
def test_an_int8_row_holds_its_values_then_its_scale_then_zeros(dim: int, nbytes: int) -> None:
    rows = np.full((2, dim), -2.54, np.float32)
    raw = encode(rows, "int8", out=np.full((2, nbytes), 255, np.uint8))
    place = (dim + 3) // 4 * 4
    assert row_nbytes(dim, "int8") == nbytes
    assert (raw[:, :dim].view(np.int8) == -127).all()
    assert (raw[:, place : place + 4].copy().view("<f4") == np.float32(2.54) / np.float32(127)).all()
    assert not raw[:, dim:place].any()
    assert not raw[:, place + 4 :].any()


@pytest.mark.parametrize("row", [np.zeros(5), np.full(5, 1e-37), np.full(5, -1e-45)])
def test_a_row_too_small_for_a_scale_is_zero(row: np.ndarray) -> None:
    rows = row.astype(np.float32)[None]
    assert not decode(encode(rows, "int8"), 5, "int8").any()


def test_bfloat16_keeps_what_it_can_hold_and_rounds_ties_to_even() -> None:
    words = np.arange(1 << 16, dtype=np.uint32) << 16
    rows = words.view(np.float32)
    rows = rows[np.isfinite(rows)][:, None]
    assert decode(encode(rows, "bfloat16"), 1, "bfloat16").tobytes() == rows.tobytes()
    ties = np.array([[0x3F808000, 0x3F818000, 0x3F808001]], np.uint32).view(np.float32)
    found = decode(encode(ties, "bfloat16"), 3, "bfloat16").view(np.uint32)
    assert found.tolist() == [[0x3F800000, 0x3F820000, 0x3F810000]]


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


@pytest.mark.parametrize("codec", CODECS)
def test_a_round_trip_in_place_equals_encoding_and_decoding(codec: str) -> None:
    rows = _rows(50, 7)
    expected = decode(encode(rows, codec), 7, codec)
    roundtrip(rows, codec)
    assert np.array_equal(rows, expected)


@pytest.mark.parametrize("value", [65520.0, -70000.0])
def test_a_value_beyond_float16_is_refused_by_node_and_value(value: float) -> None:
    rows = np.zeros((3, 2), np.float32)
    rows[1, 1] = value
    out = np.ones((3, 16), np.uint8)
    with pytest.raises(InputError, match=rf"feature 1 of node 70 is {value:g}, beyond float16"):
        encode(rows, "float16", node=np.array([60, 70, 80]), out=out)
    assert (out == 1).all()
    with pytest.raises(InputError, match="row 1"):
        roundtrip(rows, "float16")


@pytest.mark.parametrize("codec", ["float16", "bfloat16", "int8"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_refused(codec: str, value: float) -> None:
    with pytest.raises(InputError, match=f"feature 0 of row 0 is .*, beyond {codec}"):
        encode(np.array([[value, 1]], np.float32), codec)


def test_the_largest_half_is_taken() -> None:
    rows = np.array([[65504.0, -65519.0]], np.float32)
    assert np.array_equal(decode(encode(rows, "float16"), 2, "float16"), [[65504.0, -65504.0]])


def test_rows_are_encoded_into_a_given_buffer() -> None:
    out = np.full((2, 16), 255, np.uint8)
    assert encode(_rows(2, 3), "float32", out=out) is out
    assert not out[:, 12:].any()


def test_no_rows_encode_to_no_bytes() -> None:
    assert encode(np.empty((0, 5), np.float32), "float16").shape == (0, 16)


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(ConfigError, match="'int3' is unknown"):
        row_nbytes(4, "int3")
