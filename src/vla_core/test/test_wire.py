"""The policy protocol's bytes: round trips, openpi's format, hostile input."""

import contextlib

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vla_core import wire
from vla_core.errors import WireError

PLAIN_DTYPES = st.sampled_from(["uint8", "int16", "int64", "float32", "float64", "bool"])


@given(hnp.arrays(PLAIN_DTYPES, hnp.array_shapes(max_dims=4, max_side=5)))
def test_arrays_survive_the_round_trip(array: np.ndarray) -> None:
    back = wire.unpack(wire.pack({"x": array}))["x"]
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def test_an_observation_has_openpis_bytes() -> None:
    """What openpi's own msgpack_numpy would have written for the same array."""
    array = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    by_hand = msgpack.packb(
        {"image": {b"__ndarray__": True, b"data": array.tobytes(), b"dtype": "|u1", b"shape": (1, 2, 3)}}
    )
    assert wire.pack({"image": array}) == by_hand


def test_numpy_scalars_keep_their_type() -> None:
    back = wire.unpack(wire.pack({"a": np.float32(1.5), "b": np.int64(7)}))
    assert (back["a"], back["b"]) == (1.5, 7)
    assert back["a"].dtype == np.float32


def test_arrays_of_objects_are_refused_when_sent() -> None:
    with pytest.raises(WireError, match="object"):
        wire.pack({"x": np.array([{}, None], dtype=object)})


@pytest.mark.parametrize(
    "array",
    [
        {b"__ndarray__": True, b"data": b"\x00" * 8, b"dtype": "|O", b"shape": (1,)},
        {b"__ndarray__": True, b"data": b"\x00" * 8, b"dtype": "f8,f8", b"shape": (1,)},
        {b"__ndarray__": True, b"data": b"\x00" * 8, b"dtype": "nonsense", b"shape": (1,)},
        {b"__ndarray__": True, b"data": b"\x00" * 8, b"dtype": "<f8", b"shape": (2,)},
        {b"__ndarray__": True, b"data": b"\x00" * 8, b"dtype": "<f8", b"shape": (-1,)},
        {b"__ndarray__": True, b"data": "text", b"dtype": "<f8", b"shape": (1,)},
        {b"__ndarray__": True},
    ],
)
def test_hostile_arrays_are_refused(array: dict) -> None:
    with pytest.raises(WireError):
        wire.unpack(msgpack.packb({"x": array}))


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_parser(data: bytes) -> None:
    with contextlib.suppress(WireError):
        wire.unpack(data)


def test_a_cut_message_is_a_wire_error() -> None:
    whole = wire.pack({"x": np.zeros(100)})
    with pytest.raises(WireError, match="malformed"):
        wire.unpack(whole[:-10])


@pytest.mark.parametrize(("dtype", "value"), [("<i1", 1 << 40), ("<i8", 1 << 63), ("<u1", -1), ("<i8", float("inf"))])
def test_a_number_that_does_not_fit_its_type_is_a_wire_error(dtype: str, value: float) -> None:
    """numpy's OverflowError left `unpack` as it was, and ended whoever had asked."""
    with pytest.raises(WireError, match="malformed"):
        wire.unpack(msgpack.packb({"x": {b"__npgeneric__": True, b"data": value, b"dtype": dtype}}))
