"""Values on a command line, checked as argparse reads them: each of these makes a `type=` for an argument."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def whole(low: int, high: int) -> Callable[[str], int]:
    """A whole number from `low` to `high`."""

    def read(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text}: a whole number from {low} to {high} is needed")
        return value

    read.__name__ = "whole number"  # argparse says so where the text is none
    return read


def above_0(high: float) -> Callable[[str], float]:
    """A number above 0, up to `high`."""

    def read(text: str) -> float:
        value = float(text)
        if not 0 < value <= high:
            raise argparse.ArgumentTypeError(f"{text}: a number above 0 and up to {high:g} is needed")
        return value

    read.__name__ = "number"
    return read


def size(low_px: int, high_px: int, example: str) -> Callable[[str], tuple[int, int]]:
    """Width x height of a picture, px, each from `low_px` to `high_px`."""

    def read(text: str) -> tuple[int, int]:
        width, _, height = text.partition("x")
        try:
            sides = int(width), int(height)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text}: write width x height in px, for example {example}") from None
        if not all(low_px <= side <= high_px for side in sides):
            raise argparse.ArgumentTypeError(f"{text}: each side must be {low_px} to {high_px} px")
        return sides

    return read
