"""What `gg_bridge/status` and `/diagnostics` say about the bridge; plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class View:
    """The bridge's present state.

    Attributes:
        phase: `idle`, `fetching`, `waiting` (to fetch again), `swapping`.
        nucleus: `none`, `connecting`, `connected`, `lost`.
        wish, version: what the configuration asks for.
        request_id: of that wish.
        model: `name@version` that it turned out to be.
        stage: of the swap under way.
        outcome: how the wish ended; empty while it is under way.
        reason: why it ended so, or why it does not get on.
        progress: of the fetch under way.
        active_model: what the policy runs.
        last_report: the last sentence that was reported.
        reports_waiting: reports that are not delivered yet.
    """

    phase: str = "idle"
    nucleus: str = "none"
    wish: str = ""
    version: str = ""
    request_id: str = ""
    model: str = ""
    stage: str = ""
    outcome: str = ""
    reason: str = ""
    progress: str = ""
    active_model: str = ""
    last_report: str = ""
    reports_waiting: int = 0

    @property
    def is_well(self) -> bool:
        """Whether nothing needs anybody's attention."""
        failed = self.outcome in {"refused", "rolled_back"}
        return self.nucleus == "connected" and not failed and not (self.phase != "idle" and self.reason)

    @property
    def sentence(self) -> str:
        """For people."""
        what = self.model or self.wish
        reason = f": {self.reason}" if self.reason else ""
        match self.phase:
            case "fetching":
                return f"fetching {what}: {self.progress}" if self.progress else f"fetching {what}"
            case "waiting":
                return f"{what} will be tried again{reason}"
            case "swapping":
                return f"swapping to {what}, stage {self.stage or 'requested'}{reason}"
        connection = {
            "none": "no nucleus: the model stays as it is; the robot works on. ",
            "connecting": "no connection to the nucleus yet. ",
            "lost": "no connection to the nucleus at present. ",
        }.get(self.nucleus, "")
        if self.outcome in {"", "nothing"}:
            return connection + "no model is asked for"
        return f"{connection}{what} {self.outcome.replace('_', ' ')}{reason}"
