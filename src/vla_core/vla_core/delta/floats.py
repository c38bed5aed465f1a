"""Differences between the floating-point numbers of two versions of a tensor, arranged so that they compress.

A fine-tune moves every weight by a little. As bytes old and new share hardly anything; but counted in steps from one
representable number to the next, most weights move by a few. So bits are mapped to integers in the order of their
values, subtracted, and folded to 0, 1, 2, … for 0, -1, 1, …. How many steps a weight moves depends on how large it is:
differences are sorted by the old number's exponent, which both sides know, so that like stands beside like. At last the
low bytes go before the high ones, which are nearly all 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.unsignedinteger]


@dataclass(frozen=True, slots=True)
class FloatFormat:
    """How a floating-point number lies in memory, little-endian.

    Attributes:
        size: of a number, in bytes.
        mantissa, exponent: their widths in bits.
    """

    size: int
    mantissa: int
    exponent: int

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger]:
        """Of the bits."""
        return np.dtype(f"<u{self.size}")

    @property
    def signed(self) -> np.dtype[np.signedinteger]:
        """Of differences between bits."""
        return np.dtype(f"<i{self.size}")


FORMATS = {"F16": FloatFormat(2, 10, 5), "BF16": FloatFormat(2, 7, 8), "F32": FloatFormat(4, 23, 8)}
"""By safetensors' names. float64 does not occur in weights, and numbers of 8 bits have no steps to speak of."""


def subtract(new: bytes, base: bytes, form: FloatFormat) -> bytes:
    """What `add` makes `new` from again; both have the same length, a multiple of the number's size."""
    old_bits = np.frombuffer(base, form.dtype)
    steps = _ordered(np.frombuffer(new, form.dtype), form) - _ordered(old_bits, form)
    signed = steps.view(form.signed)
    folded = ((signed << 1) ^ (signed >> (8 * form.size - 1))).view(form.dtype)
    sorted_ = folded[_by_exponent(old_bits, form)]
    return np.ascontiguousarray(sorted_.view(np.uint8).reshape(-1, form.size).T).tobytes()


def add(difference: bytes, base: bytes, form: FloatFormat) -> bytes:
    """The new bytes, from the old ones and what `subtract` gave."""
    old_bits = np.frombuffer(base, form.dtype)
    planes = np.frombuffer(difference, np.uint8).reshape(form.size, -1)
    sorted_ = np.ascontiguousarray(planes.T).view(form.dtype).ravel()
    folded = np.empty_like(sorted_)
    folded[_by_exponent(old_bits, form)] = sorted_
    one = form.dtype.type(1)
    steps = (folded >> one) ^ (~(folded & one) + one)  # minus one for odd numbers, as all ones
    return _unordered(_ordered(old_bits, form) + steps, form).tobytes()


def _ordered(bits: Bits, form: FloatFormat) -> Bits:
    """Integers in the order of the numbers' values, so that neighbours differ by 1."""
    sign = form.dtype.type(1 << (8 * form.size - 1))
    return np.where(bits & sign, ~bits, bits | sign)


def _unordered(numbers: Bits, form: FloatFormat) -> Bits:
    sign = form.dtype.type(1 << (8 * form.size - 1))
    return np.where(numbers & sign, numbers ^ sign, ~numbers)


def _by_exponent(bits: Bits, form: FloatFormat) -> NDArray[np.intp]:
    exponents = (bits >> form.dtype.type(form.mantissa)) & form.dtype.type((1 << form.exponent) - 1)
    return np.argsort(exponents.astype(np.uint8), kind="stable")
