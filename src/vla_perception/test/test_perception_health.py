"""Back-off, rates, the newest-wins mailbox and the words for `/diagnostics`: logic without clocks."""

from __future__ import annotations

from threading import Thread

import pytest

from vla_perception.backoff import INITIAL_S, JITTER, MAX_S, STEADY_S, Backoff
from vla_perception.frame import MAX_STAMP_AGE_NS, Frame, plausible_stamp, whole_jpeg
from vla_perception.health import CameraHealth, Level, RateWindow, State, judge
from vla_perception.mailbox import Mailbox

SECOND_NS = 1_000_000_000
JOIN_S = 10.0


def frame(number: int) -> Frame:
    return Frame(b"\xff\xd8%d\xff\xd9" % number, number)


def test_delays_grow_to_their_limit_and_start_anew_after_a_steady_stretch() -> None:
    backoff = Backoff()
    assert [backoff.delay_s(0.0, 0.0) for _ in range(6)] == [INITIAL_S, 1.0, 2.0, 4.0, MAX_S, MAX_S]
    assert backoff.delay_s(STEADY_S / 2, 0.0) == MAX_S, "a camera that flaps keeps its long delays"
    assert backoff.delay_s(STEADY_S, 0.0) == INITIAL_S


def test_jitter_only_shortens() -> None:
    assert Backoff().delay_s(0.0, 0.999999) == pytest.approx(INITIAL_S * (1 - JITTER), rel=1e-3)


def test_a_year_of_failures_does_not_overflow() -> None:
    backoff = Backoff()
    assert {backoff.delay_s(0.0, 0.0) for _ in range(100_000)} == {0.5, 1.0, 2.0, 4.0, MAX_S}


def test_newest_frame_wins_and_the_loss_is_counted() -> None:
    mailbox = Mailbox()
    assert [mailbox.put("a", frame(1)), mailbox.put("b", frame(2)), mailbox.put("a", frame(3))] == [0, 0, 1]
    assert mailbox.take() == [("b", frame(2)), ("a", frame(3))]


def test_take_waits_for_a_frame_and_ends_when_closed() -> None:
    mailbox = Mailbox()
    taken: list[object] = []

    def take() -> None:
        while (frames := mailbox.take()) is not None:
            taken.extend(frames)
            mailbox.close()

    thread = Thread(target=take)
    thread.start()
    mailbox.put("a", frame(1))
    thread.join(JOIN_S)
    assert not thread.is_alive()
    assert taken == [("a", frame(1))]


def test_rate_over_a_growing_then_a_sliding_window() -> None:
    rate = RateWindow()
    assert rate.rate_hz(0) == 0
    for number in range(200):
        rate.add(number * SECOND_NS // 20)
        if number == 20:
            assert rate.rate_hz(SECOND_NS) == pytest.approx(20)
    assert rate.rate_hz(199 * SECOND_NS // 20) == pytest.approx(20, rel=0.02)
    assert rate.rate_hz(199 * SECOND_NS // 20 + 10 * SECOND_NS) == 0


def test_whole_jpegs_only_and_without_padding() -> None:
    jpeg = b"\xff\xd8\x00\xff\xd9"
    assert whole_jpeg(jpeg) is jpeg
    assert whole_jpeg(jpeg + bytes(100)) == jpeg
    assert whole_jpeg(jpeg[:-1]) is None
    assert whole_jpeg(b"\x00" + jpeg) is None
    assert whole_jpeg(b"") is None


def test_only_stamps_of_clocks_that_run_are_believed() -> None:
    now_ns = 1_700_000_000 * SECOND_NS
    assert plausible_stamp(now_ns - 1, now_ns) == now_ns - 1
    assert plausible_stamp(None, now_ns) == now_ns
    assert plausible_stamp(now_ns + 1, now_ns) == now_ns, "a frame cannot come from the future"
    assert plausible_stamp(now_ns - MAX_STAMP_AGE_NS, now_ns) == now_ns - MAX_STAMP_AGE_NS, "late, not relabelled"
    assert plausible_stamp(12 * SECOND_NS, now_ns) == now_ns, "a clock that was never set"


def test_health_from_start_to_loss_and_back() -> None:
    health = CameraHealth()
    assert judge(health.snapshot(0, 0), 15.0) == (Level.WARN, "no frame yet")

    health.streaming("")
    for number in range(31):
        now_ns = number * SECOND_NS // 15
        health.published(now_ns, now_ns + 5_000_000, now_ns)
    seen = health.snapshot(now_ns + 20_000_000, now_ns)
    assert (seen.frames, seen.dropped, seen.state) == (31, 0, State.STREAMING)
    assert seen.age_ms == pytest.approx(20)
    assert seen.capture_p50_ms == pytest.approx(5)
    assert judge(seen, 15.0) == (Level.OK, "15.0 fps")
    assert judge(seen, None)[0] is Level.OK
    assert judge(seen, 30.0) == (Level.WARN, "15.0 fps where 30 are expected")
    assert judge(health.snapshot(now_ns + 3 * SECOND_NS, now_ns), 15.0) == (Level.WARN, "no frame for 3.0 s")

    health.lost("unplugged; plug it in")
    assert judge(health.snapshot(now_ns, now_ns), 15.0) == (Level.ERROR, "unplugged; plug it in")
    health.streaming("set fps to 30")
    assert judge(health.snapshot(now_ns, now_ns), 15.0) == (Level.WARN, "set fps to 30")
    health.count(dropped=2, corrupt=1)
    seen = health.snapshot(now_ns, now_ns)
    assert (seen.dropped, seen.corrupt, seen.losses) == (2, 1, 1)
