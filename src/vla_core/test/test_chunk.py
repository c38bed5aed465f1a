import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_core.chunk import (
    FUTURE_TOLERANCE_NS,
    MIN_SPACING_NS,
    ActionChunk,
    Hold,
    JoinRules,
    Plan,
    brake,
    join,
)
from vla_core.errors import ConfigError, TrajectoryError

S = 1_000_000_000
T0 = 1_700_000_000 * S  # as large as a stamp of system time: float64 would lose nanoseconds here


def ramp(stamp_ns=T0, rate_hz=10.0, horizon=20, dof=6, slope=0.1, offset=0.0):
    actions = offset + slope * np.arange(horizon)[:, None] * np.ones(dof)
    return ActionChunk(stamp_ns, rate_hz, actions)


angles = st.floats(-3.0, 3.0)


@st.composite
def joins(draw):
    """A chunk, the present within it, a last plan (or none) and a state: all plausible, none kind."""
    dof = draw(st.integers(1, 7))
    horizon = draw(st.integers(2, 60))
    rate_hz = draw(st.sampled_from([5.0, 10.0, 29.97, 30.0, 50.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    step_rad = draw(st.floats(0.0, 0.2))
    chunk = ActionChunk(T0, rate_hz, draw(angles) + np.cumsum(rng.uniform(-step_rad, step_rad, (horizon, dof)), axis=0))
    span_ns = chunk.end_ns - T0
    now_ns = T0 + draw(st.integers(-FUTURE_TOLERANCE_NS, span_ns - 2 * MIN_SPACING_NS))
    rules = JoinRules(
        open_loop_s=draw(st.floats(0.05, 3.0)),
        blend_s=draw(st.floats(0.02, 0.3)),
        velocity_rad_s=draw(st.floats(0.2, 3.0)),
    )
    last = None
    if draw(st.booleans()):
        points = draw(st.integers(1, 12))
        gaps = rng.integers(MIN_SPACING_NS, S // 5, points)
        times = now_ns - draw(st.integers(0, 2 * S)) + np.cumsum(gaps)
        last = Plan(T0 - S, times, draw(angles) + np.cumsum(rng.uniform(-0.05, 0.05, (points, dof)), axis=0))
    state = rng.uniform(-3.0, 3.0, dof)
    return chunk, now_ns, last, state, rules


def top_speed(times_ns, positions):
    if len(times_ns) < 2:
        return 0.0
    return float((np.abs(np.diff(positions, axis=0)) / (np.diff(times_ns) / S)[:, None]).max())


class TestJoinProperties:
    @given(joins())
    def test_starts_now_where_the_arm_is_commanded_to_be(self, case):
        chunk, now_ns, last, state, rules = case
        plan = join(chunk, now_ns, last, state, rules)
        assert isinstance(plan, Plan)
        if last is None:
            assert now_ns < plan.start_ns
            assert plan.start_ns <= min(plan.end_ns, now_ns + round((rules.blend_s + 0.02) * S) + MIN_SPACING_NS)
        else:
            assert plan.start_ns == now_ns
            np.testing.assert_allclose(plan.positions[0], last.at(now_ns), atol=1e-12)

    @given(joins())
    def test_times_ascend_and_stay_within_horizon_and_chunk(self, case):
        chunk, now_ns, last, state, rules = case
        plan = join(chunk, now_ns, last, state, rules)
        assert (np.diff(plan.times_ns) >= MIN_SPACING_NS).all()
        assert plan.end_ns == min(chunk.end_ns, now_ns + round(rules.open_loop_s * S))
        assert plan.stamp_ns == chunk.stamp_ns

    @given(joins())
    def test_is_never_faster_than_its_parts_and_the_fade_allow(self, case):
        """With fade w, w' <= 1.5/blend: (old + w(new - old))' <= old' + new' + w'(gap + (old' + new') blend)."""
        chunk, now_ns, last, state, rules = case
        plan = join(chunk, now_ns, last, state, rules)
        old = 0.0 if last is None else top_speed(last.times_ns, last.positions)
        new = top_speed(chunk.times_ns, chunk.actions)
        # Dropping a corner within MIN_SPACING_NS of another cuts it: a line of the same or less slope.
        if last is None:  # the driver joins from what it holds, which is the state in the best of cases
            plan = Plan(plan.stamp_ns, np.r_[now_ns, plan.times_ns], np.r_[state[None], plan.positions])
        assert top_speed(plan.times_ns, plan.positions) <= rules.velocity_rad_s + 2.5 * (old + new) + 1e-6

    @given(joins())
    def test_follows_the_chunk_after_the_fade(self, case):
        chunk, now_ns, last, state, rules = case
        plan = join(chunk, now_ns, last, state, rules)
        setpoint = state if last is None else last.at(now_ns)
        after = plan.times_ns >= now_ns + rules.blend_ns(chunk.at(now_ns) - setpoint)
        np.testing.assert_allclose(plan.positions[after], chunk.at(plan.times_ns[after]), atol=1e-9)

    @given(joins())
    def test_stays_between_old_and_new(self, case):
        chunk, now_ns, last, state, rules = case
        plan = join(chunk, now_ns, last, state, rules)
        old = np.broadcast_to(state, plan.positions.shape) if last is None else last.at(plan.times_ns)
        new = chunk.at(plan.times_ns)
        assert (plan.positions >= np.minimum(old, new) - 1e-9).all()
        assert (plan.positions <= np.maximum(old, new) + 1e-9).all()


class TestJoin:
    def test_drops_what_is_past(self):
        chunk = ramp()
        last = Plan(T0, np.array([T0, T0 + S]), np.array([[0.0] * 6, [1.0] * 6]))
        plan = join(chunk, T0 + 250_000_000, last, np.full(6, 0.25), JoinRules(open_loop_s=1.0))
        assert plan.start_ns == T0 + 250_000_000
        assert plan.end_ns == T0 + 1_250_000_000
        # Already on the chunk's line: the fade changes nothing, and the chunk's own steps are in the plan.
        np.testing.assert_allclose(plan.at(T0 + S), 1.0, atol=1e-12)
        assert T0 + 300_000_000 in plan.times_ns

    def test_the_first_leaves_the_start_to_the_driver(self):
        plan = join(ramp(), T0, None, np.zeros(6), JoinRules(blend_s=0.15))
        assert plan.start_ns == T0 + 150_000_000
        np.testing.assert_allclose(plan.positions[0], 0.15)

    def test_two_chunks_that_agree_give_one_line(self):
        rules = JoinRules(open_loop_s=1.0)
        first = join(ramp(), T0, None, np.zeros(6), rules)
        second = join(ramp(T0 + 700_000_000, offset=0.7), T0 + 760_000_000, first, np.zeros(6), rules)
        times = np.arange(T0 + 760_000_000, second.end_ns, 5_000_000)
        np.testing.assert_allclose(second.at(times)[:, 0], (times - T0) / S, atol=1e-9)

    def test_the_last_setpoint_counts_after_the_old_plan_ended_not_the_sagging_arm(self):
        last = Plan(T0, np.array([T0, T0 + S]), np.array([[0.0], [0.5]]))
        plan = join(ramp(T0 + 5 * S, dof=1), T0 + 5 * S, last, np.array([0.45]), JoinRules())
        assert plan.positions[0, 0] == pytest.approx(0.5)

    def test_a_wide_gap_takes_longer_instead_of_going_faster(self):
        rules = JoinRules(open_loop_s=1.5, blend_s=0.15, velocity_rad_s=1.0)
        plan = join(ramp(slope=0.0), T0, None, np.full(6, 0.8), rules)
        assert top_speed(plan.times_ns, plan.positions) <= 1.0
        assert plan.at(T0 + 1_200_000_000)[0] == pytest.approx(0.0, abs=1e-9)

    @pytest.mark.parametrize(
        ("chunk", "now_ns", "state", "words"),
        [
            (ramp(), T0 + 2 * S, np.zeros(6), "too late: it covers 1.90 s and is 2.00 s old"),
            (ramp(), T0 - S, np.zeros(6), "1.000 s in the future"),
            (ActionChunk(T0, 10, np.array([[0.0], [np.nan]])), T0, np.zeros(1), "not finite"),
            (ActionChunk(T0, 10, np.array([[0.0], [np.inf]])), T0, np.zeros(1), "not finite"),
            (ramp(dof=1), T0, np.array([np.nan]), "measured joint positions"),
            (ramp(horizon=1), T0, np.zeros(6), "too late"),
        ],
    )
    def test_holds_with_a_reason(self, chunk, now_ns, state, words):
        outcome = join(chunk, now_ns, None, state, JoinRules())
        assert isinstance(outcome, Hold)
        assert words in outcome.reason

    def test_joints_that_differ_are_an_error(self):
        with pytest.raises(TrajectoryError, match="6 joints"):
            join(ramp(), T0, None, np.zeros(5), JoinRules())


class TestBrake:
    def test_comes_to_rest_soon_and_nearly_without_turning_back(self):
        last = join(ramp(), T0, None, np.zeros(6), JoinRules(open_loop_s=1.0))
        plan = brake(last, T0 + 500_000_000, JoinRules())
        assert plan.end_ns == T0 + 650_000_000
        np.testing.assert_allclose(plan.positions[0], 0.5, atol=1e-9)
        np.testing.assert_allclose(plan.positions[-1], 0.575, atol=1e-9)
        assert plan.positions.max() < 0.575 + 0.01

    def test_has_nothing_to_do_at_rest(self):
        last = Plan(T0, np.array([T0]), np.zeros((1, 6)))
        assert brake(None, T0, JoinRules()) is None
        assert brake(last, T0 + 1, JoinRules()) is None


class TestValidation:
    @pytest.mark.parametrize("actions", [np.zeros(6), np.zeros((0, 6)), np.zeros((2, 0)), np.zeros((1, 2, 6))])
    def test_chunk_shapes(self, actions):
        with pytest.raises(TrajectoryError, match="horizon, dof"):
            ActionChunk(T0, 10.0, actions)

    @pytest.mark.parametrize("rate_hz", [0.0, -1.0, float("nan"), float("inf")])
    def test_chunk_rates(self, rate_hz):
        with pytest.raises(TrajectoryError, match="rate"):
            ActionChunk(T0, rate_hz, np.zeros((2, 6)))

    def test_a_chunk_is_a_copy_that_cannot_change(self):
        actions = np.zeros((2, 6))
        chunk = ActionChunk(T0, 10.0, actions)
        actions[0] = 1.0
        assert chunk.actions[0, 0] == 0.0
        with pytest.raises(ValueError, match="read-only"):
            chunk.actions[0] = 1.0

    def test_plans(self):
        with pytest.raises(TrajectoryError, match="ascend"):
            Plan(T0, np.array([T0, T0]), np.zeros((2, 1)))
        with pytest.raises(TrajectoryError, match="finite"):
            Plan(T0, np.array([T0]), np.full((1, 1), np.nan))
        with pytest.raises(TrajectoryError, match="do not fit"):
            Plan(T0, np.array([T0]), np.zeros((2, 1)))

    @pytest.mark.parametrize("rules", [{"open_loop_s": 0}, {"blend_s": 0}, {"blend_s": 3}, {"velocity_rad_s": 0}])
    def test_rules(self, rules):
        with pytest.raises(ConfigError):
            JoinRules(**rules)
