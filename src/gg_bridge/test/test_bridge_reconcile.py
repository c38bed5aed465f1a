"""From a wish to a model that drives, in any order of events."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gg_bridge.actions import RETRYING, Action, Allow, Ask, CancelFetch, Fetch, Refuse, Remember, Tell
from gg_bridge.configuration import ModelConfiguration
from gg_bridge.memory import Memory
from gg_bridge.reconcile import LAST_RETRY_S, MAX_LOST, MAX_PUT_OFF, SLOW_S, UNSEEN_S, Phase, Reconciler
from vla_core.swap import Mode, Outcome, Stage, SwapStatus

A, B = ModelConfiguration(uri="file:/a", prompt="lift it"), ModelConfiguration(uri="file:/b", swap="restart")
LABELS = {A.uri: "pick@1", B.uri: "pick@2"}


def make(memory: Memory | None = None) -> Reconciler:
    return Reconciler(memory or Memory(), jitter=lambda: 0.0)


def of(kind: type, actions: list[Action]) -> list:
    return [action for action in actions if isinstance(action, kind)]


def said(reconciler: Reconciler, outcome: str = "", **more: object) -> SwapStatus:
    stage = Stage.NONE if outcome else Stage.START
    return SwapStatus(request_id=reconciler.memory.asked_id, outcome=Outcome(outcome), stage=stage, **more)


def to_swapping(reconciler: Reconciler, wish: ModelConfiguration = A, now_s: float = 0.0) -> list[Action]:
    reconciler.want(wish, now_s)
    return reconciler.fetched(reconciler.memory.request_id, LABELS[wish.uri], now_s + 2.0)


def test_a_wish_is_fetched_asked_for_and_told() -> None:
    reconciler = make()
    remember, fetch = reconciler.want(A, 0.0)
    request_id = reconciler.memory.request_id
    assert isinstance(remember, Remember)
    assert fetch == Fetch(request_id, A)
    asked = of(Ask, reconciler.fetched(request_id, "pick@1", 2.0))[0].request
    assert (asked.model, asked.request_id, asked.prompt, asked.mode) == (
        "pick@1",
        request_id,
        "lift it",
        Mode.BLUE_GREEN,
    )
    assert reconciler.heard(said(reconciler), 3.0) == []
    assert reconciler.phase is Phase.SWAPPING
    done = reconciler.heard(said(reconciler, "succeeded", timeline={"verify": 0.1}), 7.0)
    assert of(Tell, done) == [
        Tell(request_id, A, "pick@1", "succeeded", "", {"verify": 0.1, "fetch": 2.0, "total": 7.0})
    ]
    assert of(Refuse, done) == []
    assert (reconciler.phase, reconciler.due_s) == (Phase.IDLE, None)


def test_a_kill_between_two_actions_repeats_a_step_and_loses_none() -> None:
    """A beginning is remembered before it is made, an end is told before it is remembered."""
    reconciler = make()
    for actions in (reconciler.want(A, 0.0), reconciler.fetched(reconciler.memory.request_id, "pick@1", 1.0)):
        assert isinstance(actions[0], Remember)
    before = reconciler.memory
    done = reconciler.heard(said(reconciler, "refused", reason="too slow"), 2.0)
    assert [type(action) for action in done] == [Tell, Remember, Refuse]
    assert done[1].memory == reconciler.memory
    again = make(before)
    again.resume(0.0)
    again.fetched(before.request_id, "pick@1", 0.1)
    told = of(Tell, again.heard(said(again, "refused", reason="too slow"), 0.2))
    assert (told[0].request_id, told[0].outcome) == (done[0].request_id, done[0].outcome)


def test_a_success_with_a_proviso_tells_it() -> None:
    """A model that was stopped before its probation was over was told as one that had passed it."""
    reconciler = make()
    to_swapping(reconciler)
    proviso = "stopped before its probation was over"
    told = of(Tell, reconciler.heard(said(reconciler, "succeeded", reason=proviso), 3.0))
    assert [(one.outcome, one.reason) for one in told] == [("succeeded", proviso)]


def test_the_same_wish_again_does_nothing_at_any_stage() -> None:
    reconciler = make()
    reconciler.want(A, 0.0)
    assert reconciler.want(A, 1.0) == []
    reconciler.fetched(reconciler.memory.request_id, "pick@1", 2.0)
    assert reconciler.want(A, 3.0) == []
    reconciler.heard(said(reconciler, "succeeded"), 4.0)
    assert reconciler.want(A, 5.0) == []
    assert make(reconciler.memory).want(A, 6.0) == []


def test_an_older_wish_after_a_newer_one_is_a_request_of_its_own() -> None:
    reconciler, ids = make(), []
    for wish in (A, B, A):
        to_swapping(reconciler, wish)
        ids.append(reconciler.memory.request_id)
        assert of(Tell, reconciler.heard(said(reconciler, "succeeded"), 9.0))[0].outcome == "succeeded"
    assert len(set(ids)) == 3


def test_a_newer_wish_cancels_the_fetch_and_late_answers_count_nothing() -> None:
    reconciler = make()
    reconciler.want(A, 0.0)
    old = reconciler.memory.request_id
    actions = reconciler.want(B, 1.0)
    assert [type(action) for action in actions] == [CancelFetch, Tell, Remember, Fetch]
    assert (actions[1].request_id, actions[1].outcome) == (old, "superseded")
    assert reconciler.fetched(old, "pick@1", 2.0) == []
    assert reconciler.fetch_failed(old, "cut", 2.0, retryable=False) == []
    assert reconciler.ask_failed(old, "gone", 2.0, retryable=False) == []
    assert reconciler.heard(SwapStatus(request_id=old, outcome=Outcome.SUCCEEDED), 2.0) == []
    assert reconciler.phase is Phase.FETCHING


def test_a_swap_that_ends_while_the_next_model_is_fetched_is_told_as_it_ended() -> None:
    reconciler = make()
    to_swapping(reconciler)
    started = said(reconciler)
    reconciler.heard(started, 2.5)
    assert of(Tell, reconciler.want(B, 3.0)) == []
    ended = replace(started, outcome=Outcome.ROLLED_BACK, reason="it jerked")
    actions = reconciler.heard(ended, 4.0)
    assert [(told.outcome, told.label) for told in of(Tell, actions)] == [("rolled_back", "pick@1")]
    assert of(Refuse, actions) == [Refuse("pick@1", "it jerked")]
    assert reconciler.heard(ended, 4.1) == []
    assert reconciler.refusal(A) == "it jerked"
    assert reconciler.phase is Phase.FETCHING


def test_a_swap_that_the_next_request_ends_was_superseded() -> None:
    reconciler = make()
    to_swapping(reconciler)
    reconciler.heard(said(reconciler), 2.5)
    reconciler.want(B, 3.0)
    actions = reconciler.fetched(reconciler.memory.request_id, "pick@2", 4.0)
    assert [(told.outcome, told.label) for told in of(Tell, actions)] == [("superseded", "pick@1")]
    assert of(Ask, actions)[0].request.model == "pick@2"


@pytest.mark.parametrize("outcome", ["refused", "rolled_back"])
def test_a_refused_model_is_not_tried_again_by_itself(outcome: str) -> None:
    """On Greengrass Lite the configuration goes on asking for it, and every change restarts the component."""
    reconciler = make()
    to_swapping(reconciler)
    actions = reconciler.heard(said(reconciler, outcome, reason="too slow"), 3.0)
    assert of(Refuse, actions) == [Refuse("pick@1", "too slow")]
    later = make(reconciler.memory)
    assert later.want(A, 0.0) == []
    other_prompt = replace(A, prompt="put it down")
    told = of(Tell, later.want(other_prompt, 1.0))
    assert [(one.outcome, one.reason) for one in told] == [("refused", "refused before: too slow")]
    for changed in (
        replace(A, version="2"),
        replace(A, sha256="0" * 64),
        replace(A, uri="s3://b/a"),
        replace(A, swap="restart"),
    ):
        assert of(Fetch, make(later.memory).want(changed, 2.0))


def not_now(reconciler: Reconciler) -> SwapStatus:
    return said(reconciler, "refused", reason="no picture yet", passing=True)


def test_what_is_refused_for_the_present_is_asked_for_again_and_not_held_against_the_model() -> None:
    """A camera that was away for ten seconds, or short memory, refused a sound model for ever, in the store as well."""
    reconciler = make()
    first = of(Ask, to_swapping(reconciler))[0].request
    actions = reconciler.heard(not_now(reconciler), 3.0)
    assert [(told.outcome, told.reason) for told in of(Tell, actions)] == [(RETRYING, "no picture yet")]
    assert of(Refuse, actions) == []
    assert (reconciler.phase, reconciler.problem) == (Phase.WAITING, "no picture yet")
    assert reconciler.refusal(A) == ""
    again = of(Ask, reconciler.tick(reconciler.due_s))[0].request
    assert (again.model, again.prompt, again.mode) == (first.model, first.prompt, first.mode)
    assert again.request_id != first.request_id, "the policy answers one that it knows from memory"
    assert reconciler.heard(SwapStatus(request_id=first.request_id, outcome=Outcome.REFUSED, passing=True), 5.1) == []
    told = of(Tell, reconciler.heard(said(reconciler, "succeeded"), 9.0))
    assert [(one.outcome, one.request_id) for one in told] == [("succeeded", first.request_id)]


def test_what_is_refused_for_the_present_every_time_is_told_and_may_be_deployed_again() -> None:
    reconciler, now_s, ids, delays = make(), 3.0, set(), []
    to_swapping(reconciler)
    for _ in range(MAX_PUT_OFF - 1):
        ids.add(reconciler.memory.asked_id)
        actions = reconciler.heard(not_now(reconciler), now_s)
        assert isinstance(actions[0], Remember)
        delays.append(reconciler.due_s - now_s)
        now_s = reconciler.due_s
        assert of(Ask, reconciler.tick(now_s))
    assert delays == sorted(delays)
    actions = reconciler.heard(not_now(reconciler), now_s)
    assert [(told.outcome, told.reason) for told in of(Tell, actions)] == [
        ("refused", "no picture yet (tried 10 times)")
    ]
    assert of(Refuse, actions) == []
    assert len(ids) == MAX_PUT_OFF - 1
    assert make(reconciler.memory).want(A, 0.0) == [], "not by itself"
    assert of(Fetch, make(reconciler.memory).want(replace(A, prompt="wave"), 0.0))
    assert of(Fetch, make(reconciler.memory).retry(0.0))


def test_a_bridge_that_is_killed_while_it_waits_asks_under_the_next_id() -> None:
    reconciler = make()
    to_swapping(reconciler)
    saved = of(Remember, reconciler.heard(not_now(reconciler), 3.0))[-1].memory
    later = make(saved)
    later.resume(0.0)
    asked = of(Ask, later.fetched(saved.request_id, "pick@1", 1.0))[0].request
    assert asked.request_id == f"{saved.request_id}:2"


def test_a_newer_wish_ends_the_wait_of_one_that_was_put_off() -> None:
    reconciler = make()
    to_swapping(reconciler)
    reconciler.heard(not_now(reconciler), 3.0)
    assert [told.outcome for told in of(Tell, reconciler.want(B, 3.5))] == ["superseded"]
    asked = of(Ask, reconciler.fetched(reconciler.memory.request_id, "pick@2", 4.0))
    assert asked[0].request.request_id == reconciler.memory.request_id


def test_a_wish_that_was_put_off_while_the_next_is_fetched_is_told_and_not_held_against_it() -> None:
    reconciler = make()
    to_swapping(reconciler)
    reconciler.heard(said(reconciler), 2.5)
    ended = not_now(reconciler)
    reconciler.want(B, 3.0)
    actions = reconciler.heard(ended, 4.0)
    assert [told.outcome for told in of(Tell, actions)] == ["refused"]
    assert of(Refuse, actions) == []
    assert reconciler.refusal(A) == ""


def test_a_refused_model_that_is_deployed_elsewhere_is_allowed_in_the_store() -> None:
    reconciler = make()
    to_swapping(reconciler)
    reconciler.heard(said(reconciler, "refused", reason="camera lacks"), 3.0)
    reconciler.want(replace(A, version="1"), 4.0)
    assert of(Allow, reconciler.fetched(reconciler.memory.request_id, "pick@1", 5.0)) == [Allow("pick@1")]


def test_somebody_may_ask_for_a_retry() -> None:
    reconciler = make()
    assert reconciler.retry(0.0) == []
    to_swapping(reconciler)
    assert reconciler.retry(2.5) == []
    old = reconciler.memory.request_id
    reconciler.heard(said(reconciler, "refused", reason="camera lacks"), 3.0)
    assert of(Fetch, reconciler.retry(4.0))
    assert reconciler.memory.request_id != old
    assert reconciler.refusal(A) == ""


def test_the_running_model_with_another_prompt_is_never_refused_in_the_store() -> None:
    reconciler = make()
    to_swapping(reconciler)
    reconciler.heard(said(reconciler, "succeeded"), 3.0)
    reconciler.want(replace(A, prompt="x"), 4.0)
    reconciler.fetched(reconciler.memory.request_id, "pick@1", 5.0)
    assert of(Refuse, reconciler.heard(said(reconciler, "refused", reason="?"), 6.0)) == []


def test_a_fetch_that_may_succeed_later_is_tried_again_ever_more_slowly_and_told_once() -> None:
    reconciler, now_s, delays, told = make(), 0.0, [], []
    reconciler.want(A, now_s)
    for _ in range(12):
        told += of(Tell, reconciler.fetch_failed(reconciler.memory.request_id, "no network", now_s, retryable=True))
        assert reconciler.phase is Phase.WAITING
        assert reconciler.problem == "no network"
        delays.append(reconciler.due_s - now_s)
        assert reconciler.tick(reconciler.due_s - 0.01) == []
        now_s = reconciler.due_s
        assert of(Fetch, reconciler.tick(now_s))
    assert [one.outcome for one in told] == [RETRYING]
    assert delays == sorted(delays)
    assert delays[-1] == LAST_RETRY_S


def test_a_network_that_is_away_for_a_week_ends_nothing() -> None:
    """After 1024 tries, in three days, the delay was more than a float holds, and the bridge ended with that."""
    reconciler, now_s = make(), 0.0
    reconciler.want(A, now_s)
    for _ in range(2500):
        reconciler.fetch_failed(reconciler.memory.request_id, "no network", now_s, retryable=True)
        assert reconciler.due_s - now_s <= LAST_RETRY_S
        now_s = reconciler.due_s
        reconciler.tick(now_s)


def test_a_fetch_that_can_never_succeed_is_refused() -> None:
    reconciler = make()
    reconciler.want(A, 0.0)
    actions = reconciler.fetch_failed(reconciler.memory.request_id, "wrong hash", 1.0, retryable=False)
    assert [one.outcome for one in of(Tell, actions)] == ["refused"]
    assert of(Refuse, actions) == []
    assert make(reconciler.memory).want(A, 0.0) == []


def test_an_empty_wish_ends_a_fetch_that_is_tried_for_ever() -> None:
    reconciler = make()
    reconciler.want(A, 0.0)
    reconciler.fetch_failed(reconciler.memory.request_id, "no network", 0.0, retryable=True)
    actions = reconciler.want(ModelConfiguration(), 1.0)
    assert [one.outcome for one in of(Tell, actions)] == ["superseded"]
    assert reconciler.due_s is None
    assert reconciler.want(A, 2.0)


def test_an_empty_wish_cannot_take_back_a_swap() -> None:
    reconciler = make()
    to_swapping(reconciler)
    assert reconciler.want(ModelConfiguration(), 3.0) == []
    assert of(Tell, reconciler.heard(said(reconciler, "succeeded"), 4.0))


def test_a_process_killed_while_fetching_or_swapping_takes_it_up_with_the_same_request() -> None:
    first = make()
    first.want(A, 0.0)
    second = make(first.memory)
    assert second.want(A, 0.0) == [Fetch(first.memory.request_id, A)]
    second.fetched(second.memory.request_id, "pick@1", 1.0)
    third = make(second.memory)
    assert third.resume(0.0) == [Fetch(first.memory.request_id, A)]
    asked = of(Ask, third.fetched(third.memory.request_id, "pick@1", 0.1))
    assert asked[0].request.request_id == first.memory.request_id
    told = of(Tell, third.heard(said(third, "succeeded"), 0.2))
    assert [one.outcome for one in told] == ["succeeded"]
    assert make(third.memory).resume(0.0) == []


def test_the_status_of_an_earlier_request_says_nothing() -> None:
    reconciler = make()
    to_swapping(reconciler)
    assert reconciler.heard(SwapStatus(request_id="somebody", outcome=Outcome.SUCCEEDED), 3.0) == []
    assert reconciler.heard(SwapStatus(), 3.0) == []
    assert reconciler.phase is Phase.SWAPPING


def test_somebody_elses_later_request_supersedes() -> None:
    reconciler = make()
    to_swapping(reconciler)
    reconciler.heard(said(reconciler), 3.0)
    told = of(Tell, reconciler.heard(SwapStatus(request_id="cli-1"), 4.0))
    assert [one.outcome for one in told] == ["superseded"]


def test_a_policy_that_is_not_there_is_asked_until_it_is() -> None:
    reconciler = make()
    to_swapping(reconciler)
    now_s = 2.0
    for _ in range(50):
        assert reconciler.ask_failed(reconciler.memory.request_id, "not there", now_s, retryable=True) == []
        now_s = reconciler.due_s
        assert of(Ask, reconciler.tick(now_s))
    assert of(Tell, reconciler.heard(said(reconciler, "succeeded"), now_s))


def test_a_request_that_never_shows_is_made_again() -> None:
    reconciler = make()
    to_swapping(reconciler)
    assert of(Ask, reconciler.tick(2.0 + UNSEEN_S))


def test_a_request_that_the_policy_does_not_take_is_refused() -> None:
    reconciler = make()
    to_swapping(reconciler)
    told = of(Tell, reconciler.ask_failed(reconciler.memory.request_id, "no store", 3.0, retryable=False))
    assert [(one.outcome, one.reason) for one in told] == [("refused", "no store")]


def test_a_model_that_ends_the_policy_again_and_again_is_refused() -> None:
    reconciler, now_s, told = make(), 2.0, []
    to_swapping(reconciler)
    for _ in range(MAX_LOST):
        assert not told
        reconciler.heard(said(reconciler), now_s)
        told = of(Tell, reconciler.heard(SwapStatus(), now_s + 1.0))
        now_s = reconciler.due_s or 0.0
        reconciler.tick(now_s)
    assert [one.outcome for one in told] == ["refused"]
    assert "ended 3 times" in told[0].reason


def test_a_model_that_ends_the_whole_computer_again_and_again_is_refused() -> None:
    """Bridge and policy began anew together and nobody counted: the robot restarted for ever."""
    reconciler = make()
    to_swapping(reconciler)
    told: list[Tell] = []
    for _ in range(MAX_LOST):
        assert not told
        reconciler = make(reconciler.memory)  # as it was remembered before the request
        reconciler.want(A, 0.0)
        request_id = reconciler.memory.request_id
        assert of(Ask, reconciler.fetched(request_id, "pick@1", 1.0))
        assert reconciler.heard(SwapStatus(), 1.5) == []  # nothing was heard yet
        told = of(Tell, reconciler.heard(SwapStatus(state="driving", active_model="pick@0"), 2.0))
    assert [(one.outcome, one.request_id) for one in told] == [("refused", request_id)]
    assert "the computer ended 3 times" in told[0].reason


def test_a_policy_that_dies_at_work_is_asked_again_under_the_same_id_and_counted_once() -> None:
    """After a restart of the bridge its end counted twice, and the second one refused the model."""
    reconciler = make()
    to_swapping(reconciler)
    reconciler = make(reconciler.memory)
    reconciler.want(A, 0.0)
    asked = of(Ask, reconciler.fetched(reconciler.memory.request_id, "pick@1", 1.0))[0].request
    reconciler.heard(said(reconciler), 1.5)
    for state in ("unconfigured", "configuring", "driving"):  # a fresh process, which knows of nothing
        reconciler.heard(SwapStatus(state=state, active_model="pick@0" if state == "driving" else ""), 2.0)
    assert reconciler.memory.lost == 1
    assert "ended while it worked" in reconciler.problem
    assert of(Ask, reconciler.tick(reconciler.due_s))[0].request == asked


def test_a_bridge_that_was_restarted_alone_counts_nothing() -> None:
    reconciler = make()
    to_swapping(reconciler)
    for _ in range(MAX_LOST + 2):
        reconciler = make(reconciler.memory)
        reconciler.want(A, 0.0)
        reconciler.fetched(reconciler.memory.request_id, "pick@1", 1.0)
        assert reconciler.heard(said(reconciler, state="driving"), 2.0) == []
    assert reconciler.memory.lost == 0


def test_a_swap_without_an_end_is_told_once_and_waited_for() -> None:
    reconciler = make()
    to_swapping(reconciler)
    reconciler.heard(said(reconciler), 3.0)
    assert [one.outcome for one in of(Tell, reconciler.tick(3.0 + SLOW_S))] == [RETRYING]
    assert reconciler.due_s is None
    assert of(Tell, reconciler.heard(said(reconciler, "succeeded"), 9000.0))


def test_a_configuration_that_cannot_be_read_is_told_once_and_stops_nothing() -> None:
    reconciler = make()
    reconciler.want(A, 0.0)
    told = of(Tell, reconciler.complain("abc", "model.uri is 3"))
    assert [(one.outcome, one.reason) for one in told] == [("refused", "model.uri is 3")]
    assert reconciler.complain("abc", "model.uri is 3") == []
    assert make(reconciler.memory).complain("abc", "model.uri is 3") == []
    assert reconciler.phase is Phase.FETCHING
    reconciler.want(A, 1.0)
    assert of(Tell, reconciler.complain("abc", "model.uri is 3"))


def test_a_policy_that_was_started_anew_gets_the_deployed_prompt_back() -> None:
    """It boots the right model from the store, but its prompt is the launch file's."""
    reconciler = make()
    to_swapping(reconciler)
    reconciler.heard(said(reconciler, "succeeded"), 3.0)
    fresh = SwapStatus(active_model="pick@1", state="driving", prompt="the model's own")
    asked = of(Ask, reconciler.heard(fresh, 4.0))[0].request
    assert (asked.model, asked.prompt) == ("pick@1", "lift it")
    assert asked.request_id != reconciler.memory.request_id
    assert reconciler.heard(SwapStatus(request_id=asked.request_id, outcome=Outcome.SUCCEEDED), 5.0) == []
    assert reconciler.phase is Phase.IDLE
    assert reconciler.want(A, 6.0) == []


@pytest.mark.parametrize(
    "status",
    [
        SwapStatus(active_model="pick@1", state="driving", prompt="lift it"),
        SwapStatus(active_model="other@1", state="driving", prompt="x"),
        SwapStatus(active_model="", state="unconfigured"),
        SwapStatus(active_model="pick@1", state="driving", prompt="x", request_id="cli-1"),
    ],
)
def test_a_prompt_that_is_right_or_not_ours_is_left_alone(status: SwapStatus) -> None:
    reconciler = make()
    to_swapping(reconciler)
    reconciler.heard(said(reconciler, "succeeded"), 3.0)
    assert reconciler.heard(status, 4.0) == []


def test_a_model_that_gives_trouble_later_is_told_and_refused() -> None:
    """The policy goes back to the last good model without being asked to."""
    reconciler = make()
    to_swapping(reconciler)
    reconciler.heard(said(reconciler, "succeeded", active_model="pick@1", state="driving"), 3.0)
    replayed = said(reconciler, active_model="pick@0", state="driving")  # a late subscriber hears the last ten
    assert make(reconciler.memory).heard(replayed, 0.0) == []
    later = said(reconciler, "succeeded", active_model="pick@0", state="driving", hold_reason="no answers")
    actions = reconciler.heard(later, 90.0)
    assert [(told.outcome, told.label) for told in of(Tell, actions)] == [("rolled_back", "pick@1")]
    assert of(Tell, actions)[0].reason == "the policy went back to pick@0 later: no answers"
    assert [action.label for action in of(Refuse, actions)] == ["pick@1"]
    assert reconciler.heard(later, 91.0) == []
    assert make(reconciler.memory).want(A, 92.0) == []


@dataclass
class World:
    """A policy, a network and a clock that do as they please; the bridge's process may be killed at any step."""

    reconciler: Reconciler = field(default_factory=make)
    saved: Memory = field(default_factory=Memory)
    now_s: float = 0.0
    fetch: Fetch | None = None
    status: SwapStatus = field(default_factory=SwapStatus)
    known: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    told: list[Tell] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Remember():
                    self.saved = action.memory
                case Fetch():
                    assert self.fetch is None, "two fetches at once"
                    self.fetch = action
                case CancelFetch():
                    self.fetch = None
                case Ask():
                    self.asked.append(action.request.request_id)
                    if action.request.request_id not in self.known:
                        self.known.add(action.request.request_id)
                        self.status = SwapStatus(request_id=action.request.request_id, stage=Stage.START)
                case Tell():
                    self.told.append(action)

    def step(self, what: str, wish: ModelConfiguration) -> None:
        self.now_s += 1.0
        mind = self.reconciler
        if what == "want":
            self.do(mind.want(wish, self.now_s))
        elif what in {"fetched", "cut", "broken"} and self.fetch is not None:
            fetch, self.fetch = self.fetch, None
            if what == "fetched":
                self.do(mind.fetched(fetch.request_id, LABELS[fetch.wish.uri], self.now_s))
            else:
                self.do(mind.fetch_failed(fetch.request_id, what, self.now_s, retryable=what == "cut"))
        elif what == "hear":
            self.do(mind.heard(self.status, self.now_s))
        elif what in {"succeeded", "refused", "rolled_back"} and self.status.request_id and not self.status.is_over:
            self.status = replace(self.status, outcome=Outcome(what), stage=Stage.NONE, reason=what)
        elif what == "not now" and self.status.request_id and not self.status.is_over:
            self.status = replace(self.status, outcome=Outcome.REFUSED, stage=Stage.NONE, passing=True)
        elif what == "policy dies":
            self.status, self.known = SwapStatus(), set()
        elif what == "kill":
            self.reconciler, self.fetch = make(self.saved), None
            self.do(self.reconciler.want(self.saved.wish, self.now_s))
        elif what == "tick":
            self.now_s += 400.0
            self.do(mind.tick(self.now_s))


STEPS = st.sampled_from(
    [
        *("want", "want", "fetched", "fetched", "cut", "broken", "hear", "hear"),
        *("succeeded", "refused", "rolled_back", "not now", "policy dies", "kill", "tick"),
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(STEPS, st.sampled_from([A, B, ModelConfiguration()])), max_size=40))
def test_whatever_happens_the_last_wish_ends_and_is_told_once(steps: list[tuple[str, ModelConfiguration]]) -> None:
    world = World()
    for what, wish in steps:
        world.step(what, wish)
    last = replace(A, version="9")
    LABELS[last.uri] = "pick@1"
    world.step("want", last)
    for what in ["fetched", "hear", "tick", "hear", "succeeded", "hear", "hear"] * 2:
        world.step(what, last)
    assert world.saved.wish == last
    assert world.saved.outcome in {"succeeded", "superseded"}
    assert world.reconciler.phase is Phase.IDLE
    ends = [told.request_id for told in world.told if told.outcome != RETRYING]
    assert len(ends) == len(set(ends))
    assert ends.count(world.saved.request_id) == 1
