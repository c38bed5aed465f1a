"""Percentiles over a window."""

from vla_core.latency import LatencyWindow, summarise


def test_no_samples_have_no_percentiles() -> None:
    assert summarise([]).as_dict() == {"p50": None, "p95": None, "p99": None, "n": 0}


def test_the_window_forgets_the_oldest() -> None:
    window = LatencyWindow(capacity=3)
    for sample in (1000.0, 1.0, 2.0, 3.0):
        window.add(sample)
    assert window.summary().p50 == 2.0
    assert len(window) == 3
