"""In what the two nuclei differ, as far as a component can see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

CharacterName: TypeAlias = Literal["classic", "lite"]

_BOTH: Final = frozenset(
    {
        "GetConfiguration",
        "UpdateConfiguration",
        "SubscribeToConfigurationUpdate",
        "UpdateState",
        "PublishToIoTCore",
        "PublishToTopic",
        "SubscribeToTopic",
    }
)
_CLASSIC_ONLY: Final = frozenset(
    {
        "SubscribeToValidateConfigurationUpdates",
        "SendConfigurationValidityReport",
        "SubscribeToComponentUpdates",
        "DeferComponentUpdate",
        "UpdateThingShadow",
        "GetThingShadow",
    }
)


@dataclass(frozen=True, slots=True)
class Character:
    """One kind of nucleus.

    Attributes:
        name: what users call it.
        operations: what it has of what the stand-in knows.
        ends_answered_streams: an answer ends its stream. Lite's does not: clients leak what they keep for it.
        says_no_to_a_void_token: refuses in words; Lite just hangs up.
        errors_carry_message: an error has a text that the client can read; Lite's has a name that clients do not know.
        names_unknown_operations: an operation that it lacks gets a ServiceError; classic just ends the stream.
        refuses_outdated: an update that is older than the value is an error; Lite ignores it in silence.
        tells_removals: a key that a deployment removes makes an event.
        replaces_on_conflict: a deployment may put an object where a value was.
        restarts_after_cloud_change: a cloud deployment that only changes configuration restarts the component.
        restarts_on_errored: a component that reports ERRORED is stopped and started.
        rolls_back: a failed deployment is undone where its policy asks for it.
        max_message_bytes: of a frame; 0: no limit that matters.
    """

    name: CharacterName
    operations: frozenset[str]
    ends_answered_streams: bool
    says_no_to_a_void_token: bool
    errors_carry_message: bool
    names_unknown_operations: bool
    refuses_outdated: bool
    tells_removals: bool
    replaces_on_conflict: bool
    restarts_after_cloud_change: bool
    restarts_on_errored: bool
    rolls_back: bool
    max_message_bytes: int


CLASSIC: Final = Character(
    name="classic",
    operations=_BOTH | _CLASSIC_ONLY,
    ends_answered_streams=True,
    says_no_to_a_void_token=True,
    errors_carry_message=True,
    names_unknown_operations=False,
    refuses_outdated=True,
    tells_removals=True,
    replaces_on_conflict=True,
    restarts_after_cloud_change=False,
    restarts_on_errored=True,
    rolls_back=True,
    max_message_bytes=0,
)
LITE: Final = Character(
    name="lite",
    operations=_BOTH,
    ends_answered_streams=False,
    says_no_to_a_void_token=False,
    errors_carry_message=False,
    names_unknown_operations=True,
    refuses_outdated=False,
    tells_removals=False,
    replaces_on_conflict=False,
    restarts_after_cloud_change=True,
    restarts_on_errored=False,
    rolls_back=False,
    max_message_bytes=10_000,
)
CHARACTERS: Final = {character.name: character for character in (CLASSIC, LITE)}


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a nucleus takes or waits; tests shorten it.

    Attributes:
        validation_s: within which a component must judge a configuration.
        update_response_s: within which a component must answer to an announced update; silence is consent.
        restart_delay_s: from a cloud deployment's events on Lite to the restart of the component.
        running_s: within which a restarted component must report RUNNING.
        stop_s: between SIGTERM and SIGKILL.
        retry_s: before a component that failed is started again.
        retry_window_s: in which it is started again at most `retries` times.
        retries: see above.
    """

    validation_s: float = 20.0
    update_response_s: float = 60.0
    restart_delay_s: float = 10.0
    running_s: float = 60.0
    stop_s: float = 15.0
    retry_s: float = 1.0
    retry_window_s: float = 3600.0
    retries: int = 3
