"""What status, reports and settings say about the way that a model came."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fetch_support import write_model

from gg_bridge import report
from gg_bridge.actions import Tell
from gg_bridge.configuration import ModelConfiguration
from gg_bridge.fetch import Progress, Source, fetch
from gg_bridge.fetch.pace import MAX_NOTES, WINDOW_S, Pace
from gg_bridge.models import sentence
from gg_bridge.settings import Settings
from vla_core import manifest as manifests
from vla_core.errors import StoreFull
from vla_core.store import Store

WISH = ModelConfiguration(uri="https://host/m")


def test_the_stores_limit_is_a_parameter(tmp_path: Path):
    """Only the command line could limit a store: on the robot it took the disk."""
    settings = replace(Settings(), store=str(tmp_path / "store"), store_limit_gb=0.002)
    store = settings.open_store({})
    assert store.space.limit_bytes == 2_000_000
    with pytest.raises(StoreFull, match=r"2\.1 MB are needed but 2\.0 MB would be free"):
        store.make_room(2_100_000)
    assert Settings(store=str(tmp_path / "store")).open_store({}).space.limit_bytes == 0


def test_a_report_says_by_which_way_the_model_came():
    history = [
        {"event": "fetched", "label": "m@2", "came": 9, "base": "m@1"},
        {"event": "fetched", "label": "m@2", "came": 7000, "base": "m@1"},
        {"event": "update", "label": "m@2"},
        {"event": "fetched", "label": "m@3", "came": 26_000_000, "fallback": "it is damaged " * 100},
    ]
    by_delta = report.transfer_of(history, "m@2")
    assert by_delta == {"bytes": 7000, "delta_from": "m@1", "whole_because": ""}
    assert report.transfer_of(history, "m@3")["whole_because"].startswith("it is damaged it")
    assert len(report.transfer_of(history, "m@3")["whole_because"]) == report.MAX_REASON
    assert report.transfer_of([*history, {"event": "present", "label": "m@2"}], "m@2") == {}
    assert report.transfer_of(history, "m@4") == {}
    told = Tell("r", WISH, "m@2", "succeeded")
    assert report.build(told, thing="t", running="", unix_s=0.0, transfer=by_delta)["transfer"] == by_delta
    assert "transfer" not in report.build(told, thing="t", running="", unix_s=0.0, transfer={})


def test_a_model_that_was_there_came_by_no_way(tmp_path: Path):
    model, store = write_model(tmp_path / "m"), Store(tmp_path / "store")
    source = Source(str(model), sha256=manifests.sha256_file(model / manifests.FILE_NAME))
    fetch(source, store)
    assert report.transfer_of(store.history(), "tiny@1")
    fetch(source, store)
    assert report.transfer_of(store.history(), "tiny@1") == {}


def test_rate_and_remaining_time_follow_the_line():
    pace = Pace()
    assert pace.bytes_s is None
    assert sentence(Progress("looking"), pace) == "looking"
    for second in range(100):
        pace.note(1000 * second, float(second))
    assert pace.bytes_s == pytest.approx(1000)
    for tenth in range(1, 10 * int(WINDOW_S) + 1):  # the line gets ten times slower
        pace.note(99_000 + 10 * tenth, 99 + tenth / 10)
    assert pace.bytes_s == pytest.approx(100)
    assert pace.left_s(5000) == pytest.approx(50)
    assert sentence(Progress("w.onnx", 5000, 10_000), pace) == "50 % (w.onnx), 100 B/s, 50 s left"
    pace.note(0, 200.0)  # begun anew
    assert pace.bytes_s is None
    for milli in range(10 * MAX_NOTES):
        pace.note(milli, 200 + milli / 1000)
    assert pace.bytes_s == pytest.approx(1000, rel=0.01)
    pace.note(10 * MAX_NOTES, 230.0)
    pace.note(10 * MAX_NOTES, 246.0)
    assert pace.left_s(1) is None  # it stands still
