"""The node `/policy`: pictures, joint states and a prompt in, joint trajectories out.

This file only wires: ROS on one side, `Engine` with its `ControlLoop` and the `Swapper` on the other.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from std_msgs.msg import String

from vla_core.errors import EvergreenError
from vla_policy.clock import SystemClock
from vla_policy.engine import Engine
from vla_policy.inbox import Inbox
from vla_policy.inputs import Inputs
from vla_policy.loaded import Loaded
from vla_policy.loader import Loader
from vla_policy.model import ModelSpec
from vla_policy.outputs import Outputs
from vla_policy.parameters import Parameters
from vla_policy.serving.errors import ServerUnavailableError
from vla_policy.settings import Settings
from vla_policy.shelf import open_shelf
from vla_policy.status import ACTIVE, HOLDING
from vla_policy.swap import Swap
from vla_policy.swapper import Swapper
from vla_ros import qos
from vla_ros.lifecycle import BackgroundLifecycleNode, Outcome, reported
from vla_ros.main import run

DIAGNOSTICS_PERIOD_S = 1.0
SWITCH_INTERVAL_S = 0.0005
"""The loop must not wait 5 ms (Python's default) for the interpreter while the executor unpacks a picture."""
OK, FAILED = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class PolicyNode(BackgroundLifecycleNode):
    """Composition root of the policy; also what its swapper asks of a node."""

    def __init__(self) -> None:
        super().__init__("policy")
        self._settable = Parameters(self)
        self._settings = self._settable.settings
        shelf, clock, self._inbox = open_shelf(self._settings.store), SystemClock(), Inbox()
        self._outputs = Outputs(self, self._settable.show_active)
        self._say = self._outputs.say
        self._inputs = Inputs(self, self._inbox, self._outputs.meter, clock)
        self._engine = Engine(
            self._inbox, self._outputs, clock, log=lambda line: self.get_logger().info(f"policy_server: {line}")
        )
        self._shelf, self._loader = shelf, Loader(self._engine, shelf, self.get_logger().error)
        self._prepared: Loaded | None = None
        self._at_launch = self._settings
        self._launched: str | None = self._settings.model
        self._wanted, self._stopping, self._try_again = self._settings.autostart, False, False
        self._swapper = Swapper(self, self._engine, self._loader, shelf, inbox=self._inbox, clock=clock)
        self._outputs.despairs = self._swapper.fallback.despairs
        self._settable.listen(self._swapper.ask)
        self.create_subscription(String, "prompt", self._on_prompt, qos.PROMPT)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._on_diagnostics)
        self.create_background_trigger("~/start", self._bring_up, at_once=partial(setattr, self, "_wanted", True))
        self.create_background_trigger("~/stop", self._bring_down, at_once=partial(setattr, self, "_wanted", False))
        self._say()
        if self._wanted:
            self.in_background(self._bring_up)

    def destroy_node(self) -> None:
        """Bring the arm to rest, and end the servers."""
        self._engine.cancel()
        self._swapper.close()
        self._engine.stop()
        self._outputs.flush()
        self.in_background(self._engine.release).result()
        self._swapper.join()
        super().destroy_node()

    # Transitions, in their thread.

    @reported
    def on_configure(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Start or find the server, and see whether model and robot fit; or take the model that a swap prepared."""
        prepared, self._prepared = self._prepared, None
        try:
            loaded, reason = (prepared, "") if prepared is not None else self._load()
        except EvergreenError as error:
            self._try_again = self._settings.autostart and self._wanted and isinstance(error, ServerUnavailableError)
            if str(error) != self._outputs.status.reason:
                self.get_logger().error(str(error))
            self._say(state="unconfigured", reason=str(error))
            return FAILED
        self._engine.install(loaded)
        self._inbox.put_prompt(None)  # an override does not outlive its model
        self.see(loaded.spec)
        self.runs(loaded)
        self._say(state="inactive", reason=reason)
        self.get_logger().info(f"{loaded.spec.label} is ready, server {self._settings.server}")
        return OK

    def _load(self) -> tuple[Loaded, str]:
        self._settings = settings = replace(self._settings, **self._settable.wanted())
        self._say(state="configuring", model=settings.model, server=settings.server)
        if settings.model == self._launched:
            model = self._shelf.boots(settings.model)
            prompt = self._shelf.prompt_of(model)  # an update's; a respawn must not go back to the launch file's
            settings = replace(settings, model=model, prompt=settings.prompt if prompt is None else prompt)
            self._settings, self._launched = settings, None
            self._settable.set(model=model, prompt=settings.prompt)  # the next attempt, too, is with these
        return self._loader.load_to_start(settings, self._at_launch)

    @reported
    def on_activate(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Drive."""
        self._say(state=HOLDING, reason=self._outputs.status.reason or "waiting for the first chunk")
        loaded = self._engine.loaded
        self._engine.start(None if loaded is None else self._swapper.fallback.guard(loaded))
        return OK

    @reported
    def on_deactivate(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Bring the arm to rest; model and server stay loaded."""
        self._wanted = self._wanted and self._stopping
        self._engine.stop()
        self._say(state="inactive", reason="")
        return OK

    def on_cleanup(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of model and server."""
        return self._release("unconfigured")

    def on_shutdown(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """As cleaning up, for good."""
        return self._release("finalized")

    on_error = on_cleanup

    @reported
    def _release(self, state: str) -> TransitionCallbackReturn:
        self._wanted = False
        self._engine.release()
        self._inputs.close()
        self._say(state=state, active_model="", prompt="")
        return OK

    def _bring_up(self) -> Outcome:
        """As long as it is wanted: a stop may come while a model loads."""
        if self._wanted and self._outputs.status.state == "unconfigured":
            self.trigger_configure()
        if self._wanted and self._outputs.status.state == "inactive":
            self.trigger_activate()
        status = self._outputs.status
        driving = status.state in ACTIVE
        return driving, status.sentence if self._wanted or driving else "stopped before it drove"

    def _bring_down(self) -> Outcome:
        if self._outputs.status.state in ACTIVE:
            self._stopping = True  # a start that has come meanwhile stays wanted
            self.trigger_deactivate()
            self._stopping = False
        return True, self._outputs.status.sentence

    # What the swapper wants, in its thread.

    def settings(self) -> Settings:
        """See `Host`."""
        return self._settings

    def settle(self) -> None:
        """See `Host`."""
        self.in_background(lambda: None).result()

    def told(self, swap: Swap) -> None:
        """See `Host`."""
        self._say(**swap.values())

    def see(self, *specs: ModelSpec) -> None:
        """See `Host`."""
        cameras = {name for spec in specs for name in spec.cameras}
        self._inputs.listen(cameras)
        self._inputs.only(cameras)

    def runs(self, loaded: Loaded | None) -> None:
        """See `Host`."""
        if loaded is None:
            self._settable.set(model=self._settings.model, prompt=self._settings.prompt)
            return
        self._settings = settings = replace(self._settings, model=loaded.model, prompt=loaded.settings.prompt)
        prompt = self._inbox.prompt(loaded.prompt)
        note = loaded.objection_to(prompt)
        self._say(
            active_model=loaded.spec.label,
            model=settings.model,
            server=settings.server,
            prompt=prompt,
            prompt_note=note,
        )
        self._settable.set(model=settings.model, prompt=settings.prompt)

    def configure(self, loaded: Loaded) -> bool:
        """See `Host`."""

        def transit() -> bool:
            self._prepared = loaded
            if self._outputs.status.state == "unconfigured":
                self.trigger_configure()
            self._bring_up()
            taken, self._prepared = self._engine.loaded is loaded, None
            return taken

        return bool(self.in_background(transit).result())

    def warn(self, text: str) -> None:
        """See `Host`."""
        self._say(reason=text)
        self.get_logger().error(text)

    def log(self, text: str) -> None:
        """See `Host`."""
        self.get_logger().warning(text)

    # Topics, in the executor's thread.

    def _on_prompt(self, message: String) -> None:
        loaded = self._engine.loaded
        self._outputs.prompted(message.data, "" if loaded is None else loaded.objection_to(message.data))
        self._inputs.put_prompt(message.data)
        self._engine.poke()

    def _on_diagnostics(self) -> None:
        if self._outputs.defect is not None:
            raise self._outputs.defect
        due, self._try_again = self._try_again, False
        if due and self._wanted:
            self.in_background(self._bring_up)
        self._outputs.diagnose()


def main() -> None:
    """Entry point of the executable `policy`."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    sys.exit(run(PolicyNode))


if __name__ == "__main__":
    main()
