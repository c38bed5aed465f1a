"""Reports that wait on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gg_bridge.outbox import Outbox


class OfflineError(Exception):
    """Nobody takes reports."""


def test_they_are_delivered_in_order_and_then_gone(tmp_path: Path) -> None:
    outbox, sent = Outbox(tmp_path / "box"), []
    for text in ("a", "b", "ü"):
        assert outbox.put(text) == 0
    assert len(outbox) == 3
    assert outbox.deliver(sent.append) == 3
    assert outbox.deliver(sent.append) == 0
    assert sent == ["a", "b", "ü"]
    assert list((tmp_path / "box").iterdir()) == []


def test_what_was_not_delivered_stays_for_the_next_process(tmp_path: Path) -> None:
    outbox, sent = Outbox(tmp_path), []
    for text in ("a", "b", "c"):
        outbox.put(text)

    def send(text: str) -> None:
        if text == "b":
            raise OfflineError
        sent.append(text)

    with pytest.raises(OfflineError):
        outbox.deliver(send)
    later = Outbox(tmp_path)
    later.put("d")
    later.deliver(sent.append)
    assert sent == ["a", "b", "c", "d"]


def test_the_oldest_have_to_go_for_the_newest(tmp_path: Path) -> None:
    outbox, sent = Outbox(tmp_path, limit=2), []
    assert [outbox.put(text) for text in "abcd"] == [0, 0, 1, 1]
    outbox.deliver(sent.append)
    assert sent == ["c", "d"]


def test_half_a_file_and_strangers_are_passed_over(tmp_path: Path) -> None:
    """A kill while a report is written leaves a file with another name."""
    outbox, sent = Outbox(tmp_path), []
    outbox.put("a")
    (tmp_path / "000000000007.json.new").write_text("half")
    (tmp_path / "readme.txt").write_text("not ours")
    later = Outbox(tmp_path)
    later.put("b")
    later.deliver(sent.append)
    assert sent == ["a", "b"]


@given(st.lists(st.sampled_from(["put", "fail", "deliver", "restart"]), max_size=40))
def test_nothing_is_lost_or_reordered(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> None:
    folder = tmp_path_factory.mktemp("outbox")
    outbox, put, sent = Outbox(folder), [], []

    def fail(_: str) -> None:
        raise OfflineError

    for step in steps:
        if step == "put":
            put.append(str(len(put)))
            outbox.put(put[-1])
        elif step == "restart":
            outbox = Outbox(folder)
        elif step == "deliver":
            outbox.deliver(sent.append)
        elif len(outbox):
            with pytest.raises(OfflineError):
                outbox.deliver(fail)
    outbox.deliver(sent.append)
    assert sent == put
