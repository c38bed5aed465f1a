"""A stand-in for a Greengrass nucleus: the real protocol on a Unix socket, for tests, demos and development.

with StandInNucleus("lite", tmp_path / "ipc.socket", defaults={"model": {"uri": ""}}) as nucleus:
    os.environ.update(nucleus.environment())
    …                                              # the component connects
    deployment = nucleus.deploy({"model": {"uri": "file:/models/b"}}).wait(20.0)
    assert deployment.status == "SUCCEEDED"
"""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from gg_bridge.testing.character import CHARACTERS, CharacterName, Timing
from gg_bridge.testing.component import CallbackComponent, Component, ProcessComponent
from gg_bridge.testing.deployments import Deployer, Deployment, FailurePolicy, Order
from gg_bridge.testing.faults import Faults
from gg_bridge.testing.operations import Operations, Published
from gg_bridge.testing.server import Server
from vla_core.errors import ConfigError

Result = TypeVar("Result")

COMPONENT: Final = "dev.evergreen.Model"
DEFAULT_TIMING: Final = Timing()
_CALL_S: Final = 60.0
"""The loop answers at once; longer means that the stand-in itself is stuck."""


class StandInNucleus:
    """One nucleus with one component; it runs in a thread of its own, and every method may be called from any other.

    Args:
        character: `classic` or `lite`.
        socket: where to listen.
        component: the component's name.
        defaults: the default configuration of its recipe.
        timing: how long things take.
        command: a program to run as the component, with its arguments.
        on_restart_component: called where the nucleus would stop and start the component; instead of `command`.
    """

    def __init__(
        self,
        character: CharacterName,
        socket: Path,
        *,
        component: str = COMPONENT,
        defaults: Mapping[str, Any] | None = None,
        timing: Timing = DEFAULT_TIMING,
        command: Sequence[str] = (),
        on_restart_component: Callable[[], None] | None = None,
    ) -> None:
        if character not in CHARACTERS:
            raise ConfigError(f"character is {character!r}; it must be one of {', '.join(CHARACTERS)}")
        if command and on_restart_component is not None:
            raise ConfigError("a command and on_restart_component exclude each other")
        self._socket = socket
        self._defaults = copy.deepcopy(dict(defaults or {}))
        self._timing = timing
        self._command = tuple(command)
        self._on_restart = on_restart_component
        self._operations = Operations(CHARACTERS[character], component)
        self._server = Server(socket, self._operations)
        self._component: Component | None = None
        self._deployer: Deployer | None = None
        self._deployments: list[Deployment] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # Beginning and end

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Listen, and start the component's program.

        Raises:
            ConfigError: the socket's path cannot be used.
        """
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(self._loop,), name="stand-in nucleus", daemon=True)
        self._thread.start()
        try:
            self._call(self._start())
        except BaseException:
            self._end_loop()
            raise

    def close(self) -> None:
        """Stop everything."""
        if self._loop is None:
            return
        self._call(self._stop())
        self._end_loop()

    # What a component needs

    def environment(self) -> dict[str, str]:
        """The variables with which a nucleus starts its components; the token changes with each `restart`."""
        return {
            "SVCUID": self._server.token,
            "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT": str(self._socket),
        }

    # What the cloud and the device's owner do

    def deploy(
        self,
        merge: Mapping[str, Any] | None = None,
        *,
        reset: Sequence[str] = (),
        version: str = "",
        defaults: Mapping[str, Any] | None = None,
        local: bool = False,
        on_failure: FailurePolicy = "ROLLBACK",
    ) -> Deployment:
        """Begin a deployment; see `Order` for the arguments, and `Deployment.wait` for the end."""
        order = Order(copy.deepcopy({} if merge is None else merge), reset, version, defaults, local, on_failure)
        deployment = Deployment(order)
        self._deployments.append(deployment)
        self._call(self._begin(deployment))
        return deployment

    def restart(self) -> None:
        """Restart the nucleus: connections break and the old token is void.

        Classic starts its component again. Lite leaves it alone: it must notice, and end for being started again.
        """
        self._call(self._restart())

    def drop_connections(self, *, mid_message: bool = False) -> None:
        """Break all connections, with `mid_message` in the middle of a message; the token stays good."""
        self._call(self._drop(mid_message=mid_message))

    # What can be seen

    @property
    def character(self) -> CharacterName:
        """Which kind it is."""
        return self._operations.character.name

    @property
    def state_reports(self) -> tuple[str, ...]:
        """Every UpdateState, oldest first."""
        return tuple(self._operations.states)

    @property
    def published(self) -> tuple[Published, ...]:
        """Every message to AWS IoT Core, oldest first."""
        return tuple(self._operations.published)

    @property
    def shadows(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Documents by thing and name."""
        return copy.deepcopy(dict(self._operations.shadows.documents))

    @property
    def deployments(self) -> tuple[Deployment, ...]:
        """Oldest first."""
        return tuple(self._deployments)

    @property
    def version(self) -> str:
        """Of the component."""
        return "" if self._deployer is None else self._deployer.version

    @property
    def clients(self) -> int:
        """How many are connected with a good token."""
        return len(self._server.clients)

    def configuration(self, *key_path: str) -> Any:
        """The component's merged configuration, or what it has at a key path."""
        if self._loop is None:
            return self._operations.configuration.value(key_path)
        return self._call(self._value(key_path))

    def subscriptions(self, operation: str) -> int:
        """How many streams of a subscribing operation are open."""
        return len(self._operations.streaming[operation])

    def component_status(self) -> dict[str, object]:
        """Of the program or callback that stands for the component."""
        return {} if self._component is None else self._component.status()

    # What goes wrong

    @property
    def faults(self) -> Faults:
        """What it does wrong at present; set it to change that."""
        return self._operations.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._operations.faults = faults

    def ping(self) -> None:
        """Ask every client whether it is there; `pongs` counts the answers."""
        self._call(self._ping())

    @property
    def pongs(self) -> int:
        """How many pings were answered."""
        return self._server.pongs

    # On the event loop

    async def _start(self) -> None:
        if self._command:
            self._component = ProcessComponent(self._command, self.environment, self._timing)
        elif self._on_restart is not None:
            self._component = CallbackComponent(self._on_restart, self._timing)
        self._deployer = Deployer(self._operations, self._component, self._timing, self._defaults)
        await self._server.start()
        if isinstance(self._component, ProcessComponent):
            await self._component.restart()

    async def _stop(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._component is not None:
            await self._component.stop()
        await self._server.stop()
        await asyncio.get_running_loop().shutdown_default_executor()

    async def _begin(self, deployment: Deployment) -> None:
        if self._deployer is None:
            raise ConfigError("the stand-in nucleus does not run: start it first")
        task = asyncio.create_task(self._deployer.carry_out(deployment))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _value(self, key_path: Sequence[str]) -> Any:
        return self._operations.configuration.value(key_path)

    async def _restart(self) -> None:
        component = self._component if self._operations.character.name == "classic" else None
        if component is not None:
            await component.stop()
        await self._server.restart()
        if component is not None:
            await component.restart()

    async def _drop(self, *, mid_message: bool) -> None:
        self._server.drop(mid_message=mid_message)

    async def _ping(self) -> None:
        for client in self._server.clients:
            client.ping(b"are you there?")

    # The thread

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()

    def _call(self, work: Coroutine[Any, Any, Result]) -> Result:
        if self._loop is None:
            work.close()
            raise ConfigError("the stand-in nucleus does not run: start it first")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_S)

    def _end_loop(self) -> None:
        loop, thread = self._loop, self._thread
        self._loop, self._thread = None, None
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
