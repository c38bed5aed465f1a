"""The parameters of `/gg_bridge`, and what follows from them."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gg_bridge.bridge import Manner
from gg_bridge.deferral import LIMIT_S
from gg_bridge.telling import Ways
from vla_core.errors import ConfigError
from vla_core.signing import KEYS_VARIABLE, Trust, is_required, key_paths, load_trust
from vla_core.store import Space, Store, default_root
from vla_ros.params import param

AUTO, REQUIRED, NONE = "auto", "required", "none"
SOCKET_VARIABLE = "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT"
BYTES_PER_GB = 10**9
THING_VARIABLE = "AWS_IOT_THING_NAME"
"""Both are set by the nucleus for its components."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Parameters of the node."""

    nucleus: str = param(
        AUTO,
        "`auto` connects where a nucleus started this process; `required` ends where none did; `none` never connects",
        choices=(AUTO, REQUIRED, NONE),
    )
    store: str = param("", "folder of the model store; empty: the environment's EVERGREEN_STORE")
    store_limit_gb: float = param(
        0.0, "most that models and downloads may take together; 0: the disk, less 64 MB", unit="GB", minimum=0
    )
    policy: str = param("policy", "name of the policy node, relative to this node's namespace")
    quiet_time_s: float = param(
        1.0, "how long no event may come before the configuration is read", unit="s", minimum=0, maximum=60
    )
    defer_limit_s: float = param(
        LIMIT_S, "longest time for which a deployment waits for the arm to stand; 0: not at all", unit="s", minimum=0
    )
    nucleus_timeout_s: float = param(
        10.0, "how long the nucleus may take to answer", unit="s", minimum=0.1, maximum=120
    )
    thing: str = param("", "this robot's name in reports; empty: the environment's AWS_IOT_THING_NAME, else the host's")
    report_topic: str = param(
        "evergreen/{thing}/update", "topic of AWS IoT Core for reports; {thing} is replaced; empty: none"
    )
    shadow: str = param("evergreen", "named shadow in AWS IoT for the last report; empty: none")
    report_errored: bool = param(True, "report a failed update also as the component's state ERRORED")
    trusted_keys: str = param(
        "", "public keys (files or folders, joined by `:`) that may sign models; empty: EVERGREEN_TRUSTED_KEYS"
    )
    require_signature: bool = param(False, "refuse unsigned models; also by EVERGREEN_REQUIRE_SIGNATURE=1")

    def open_store(self, environment: Mapping[str, str]) -> Store:
        """The store of models, which takes what this robot trusts.

        Raises:
            EvergreenError: it cannot be made, or a key is wrong.
        """
        root = Path(self.store).expanduser() if self.store else default_root(environment)
        space = Space(limit_bytes=round(self.store_limit_gb * BYTES_PER_GB))
        return Store(root, self._trust(environment), space)

    def _trust(self, environment: Mapping[str, str]) -> Trust:
        text = self.trusted_keys or environment.get(KEYS_VARIABLE, "")
        return load_trust(key_paths(text), self.require_signature or is_required(environment))

    def wants_nucleus(self, environment: Mapping[str, str]) -> bool:
        """Whether to connect.

        Raises:
            ConfigError: a nucleus is required and did not start this process.
        """
        if self.nucleus == NONE:
            return False
        present = bool(environment.get(SOCKET_VARIABLE))
        if not present and self.nucleus == REQUIRED:
            raise ConfigError(
                f"parameter 'nucleus' is 'required', but no nucleus started this process ({SOCKET_VARIABLE} is not "
                "set); run it as a Greengrass component, or set 'nucleus' to 'auto'"
            )
        return present

    def manner(self, environment: Mapping[str, str]) -> Manner:
        """How the bridge behaves."""
        thing = self.thing or environment.get(THING_VARIABLE, "") or platform.node()
        ways = Ways(thing=thing, topic=self.report_topic, shadow=self.shadow, errored=self.report_errored)
        return Manner(ways=ways, quiet_time_s=self.quiet_time_s, defer_limit_s=self.defer_limit_s)
