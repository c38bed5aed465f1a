"""Running processes: output, respawn, required processes, signals, and that nothing is left behind.

The children are small Python programs, told apart by their arguments; every wait has a deadline.
"""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from evergreen.launch.child import MAX_LINE_BYTES, Child, Lines
from evergreen.launch.errors import LaunchError, Place
from evergreen.launch.events import (
    Abandoned,
    Event,
    Exited,
    GivenUp,
    Leftovers,
    NotSignalled,
    NotStarted,
    Output,
    Respawning,
    Signalled,
    Started,
    Stopping,
)
from evergreen.launch.launcher import Launcher
from evergreen.launch.plan import LaunchPlan, ProcessPlan, TemporaryFile

DEADLINE_S = 30.0
PLACE = Path("test.launch.xml")

TALK = "import sys; print('to stdout'); print('to stderr', file=sys.stderr); sys.stdout.write('no end')"
WAIT = "import signal; print('ready'); signal.pause()"
POLITE = """
import signal, sys
signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
print('ready')
while True: signal.pause()
"""
ONLY_TERM = """
import signal, sys
signal.signal(signal.SIGINT, lambda *_: print('no'))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print('ready')
while True: signal.pause()
"""
STUBBORN = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('ready')
while True: signal.pause()
"""
PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, '-I', '-S', '-u', '-c', sys.argv[1]], stdout=subprocess.PIPE)
child.stdout.readline()
print('child', child.pid, flush=True)
sys.exit(3)
"""
"""Starts another process in its own group and dies without it."""


def python(code: str, *arguments: str) -> tuple[str, ...]:
    """A command line that runs this code, quickly: without site packages."""
    return (sys.executable, "-I", "-S", "-u", "-c", code, *arguments)


def process(
    name: str,
    command: tuple[str | TemporaryFile, ...],
    *,
    respawn: bool = False,
    respawn_delay_s: float = 0.0,
    respawn_limit: int = -1,
    required: bool = False,
    sigterm_after_s: float = 5.0,
    sigkill_after_s: float = 5.0,
    cwd: str | None = None,
) -> ProcessPlan:
    return ProcessPlan(
        name=name,
        command=command,
        environment=dict(os.environ),
        cwd=cwd,
        output="screen",
        respawn=respawn,
        respawn_delay_s=respawn_delay_s,
        respawn_limit=respawn_limit,
        required=required,
        sigterm_after_s=sigterm_after_s,
        sigkill_after_s=sigkill_after_s,
        node="",
        place=Place(PLACE, 1, "executable"),
    )


def plan(*processes: ProcessPlan) -> LaunchPlan:
    return LaunchPlan(PLACE, processes, {})


def until(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline_s:
            pytest.fail(f"{what} did not happen within {DEADLINE_S:.0f} s")
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


class Log(list[Event]):
    """Hears a graph."""

    def __call__(self, event: Event) -> None:
        self.append(event)

    def of(self, kind: type) -> list:
        return [event for event in list(self) if isinstance(event, kind)]

    def lines(self, name: str) -> list[str]:
        return [event.line for event in self.of(Output) if event.process == name]

    def wait_for_line(self, name: str, line: str = "ready") -> None:
        until(lambda: line in self.lines(name), f"line {line!r} of {name}")


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def run(log: Log) -> Iterator[Callable[..., Launcher]]:
    """Start graphs; whatever a test leaves running is killed."""
    started: list[Launcher] = []

    def start(*processes: ProcessPlan) -> Launcher:
        launcher = Launcher(plan(*processes), on_event=log)
        started.append(launcher)
        return launcher.start()

    yield start
    for launcher in started:
        for _ in range(3):
            launcher.request_stop("the test is over")
        assert launcher.wait(DEADLINE_S) is not None


def code_of(launcher: Launcher) -> int:
    code = launcher.wait(DEADLINE_S)
    assert code is not None, "the graph did not end"
    return code


# --- output and ends -------------------------------------------------------------------------------------------------


def test_output_is_told_by_lines_and_streams(run: Callable[..., Launcher], log: Log) -> None:
    assert code_of(run(process("talker-1", python(TALK)))) == 0
    assert sorted((event.stream, event.line) for event in log.of(Output)) == [
        ("stderr", "to stderr"),
        ("stdout", "no end"),
        ("stdout", "to stdout"),
    ]
    (started,), (exited,) = log.of(Started), log.of(Exited)
    assert isinstance(log[0], Started)
    assert log[-1] is exited
    assert (started.pid, exited.code, exited.expected) == (exited.pid, 0, False)


def test_lines_are_cut_where_they_end_or_grow_too_long() -> None:
    lines = Lines()
    assert lines.feed(b"a\r\nb") == ["a"]
    assert lines.feed(b"c\n\nd") == ["bc", ""]
    assert lines.end() == ["d"]
    assert lines.end() == []
    (long,) = lines.feed(b"x" * (MAX_LINE_BYTES + 1))
    assert (len(long), lines.end()) == (MAX_LINE_BYTES, ["x"])
    assert lines.feed(b"\xff\n") == ["\N{REPLACEMENT CHARACTER}"]


def test_a_graph_with_a_failure_fails(run: Callable[..., Launcher], log: Log) -> None:
    assert code_of(run(process("good-1", python("")), process("bad-2", python("raise SystemExit(3)")))) == 1
    assert {event.process: event.code for event in log.of(Exited)} == {"good-1": 0, "bad-2": 3}


def test_parameter_files_are_written_for_the_time_of_the_graph(run: Callable[..., Launcher], log: Log) -> None:
    code = "import sys; print(sys.argv[1]); print(open(sys.argv[1]).read())"
    launcher = run(process("node-1", (*python(code), TemporaryFile("content: 1"))))
    assert code_of(launcher) == 0
    path, content, *_ = log.lines("node-1")
    assert content == "content: 1"
    assert not Path(path).exists()


def test_what_cannot_be_started_is_an_error_and_stops_the_rest(log: Log) -> None:
    launcher = Launcher(plan(process("waits-1", python(WAIT)), process("none-2", ("/does/not/exist",))), on_event=log)
    with pytest.raises(LaunchError, match="none-2: No such file or directory: /does/not/exist"):
        launcher.start()
    assert not launcher.running
    assert [event.process for event in log.of(NotStarted)] == ["none-2"]
    assert [event.process for event in log.of(Exited)] == ["waits-1"]


def test_an_observer_that_fails_stops_the_graph_and_is_heard() -> None:
    def fail(event: Event) -> None:
        if isinstance(event, Output):
            raise RuntimeError("cannot take it")  # noqa: TRY004

    launcher = Launcher(plan(process("polite-1", python(POLITE))), on_event=fail).start()
    with pytest.raises(RuntimeError, match="cannot take it"):
        launcher.wait(DEADLINE_S)
    assert not launcher.running


# --- respawn and required processes ----------------------------------------------------------------------------------


def test_respawn_starts_again_up_to_the_limit(run: Callable[..., Launcher], log: Log) -> None:
    launcher = run(process("again-1", python("raise SystemExit(4)"), respawn=True, respawn_limit=2))
    assert code_of(launcher) == 1
    assert [event.restarts for event in log.of(Started)] == [0, 1, 2]
    assert len(log.of(Respawning)) == 2
    assert len({event.pid for event in log.of(Started)}) == 3
    assert log.of(GivenUp) == [GivenUp("again-1", "respawn_max_retries allows 2 times")]
    assert isinstance(log[-1], GivenUp)


def test_a_wrong_configuration_is_not_tried_again_and_the_others_run_on(run: Callable[..., Launcher], log: Log) -> None:
    """Exit code 2 was respawned for ever: the mistake scrolled by every two seconds, and the graph counted as sound."""
    launcher = run(
        process("wrong-1", python("raise SystemExit(2)"), respawn=True),
        process("polite-2", python(POLITE), respawn=True),
    )
    log.wait_for_line("polite-2")
    until(lambda: bool(log.of(GivenUp)), "giving up")
    assert launcher.running
    assert launcher.stop("ctrl-c") == 1
    (given_up,) = log.of(GivenUp)
    assert given_up.process == "wrong-1"
    assert given_up.reason.startswith("exit code 2 means that its configuration is wrong")
    assert log.of(Respawning) == []
    assert {event.process: (event.code, event.expected) for event in log.of(Exited)} == {
        "wrong-1": (2, False),
        "polite-2": (0, True),
    }


def test_a_required_process_with_a_wrong_configuration_ends_the_graph(run: Callable[..., Launcher], log: Log) -> None:
    launcher = run(process("wrong-1", python("raise SystemExit(2)"), respawn=True, required=True))
    assert code_of(launcher) == 1
    assert [event.reason for event in log.of(Stopping)] == ["required process wrong-1 has ended with exit code 2"]
    assert log.of(GivenUp) == []


def test_respawn_waits_for_its_delay_and_a_stop_cuts_it_short(run: Callable[..., Launcher], log: Log) -> None:
    launcher = run(process("slow-1", python(""), respawn=True, respawn_delay_s=3600))
    until(lambda: bool(log.of(Respawning)), "respawning")
    assert log.of(Respawning) == [Respawning("slow-1", 3600)]
    assert launcher.stop() == 0
    assert len(log.of(Started)) == 1


@pytest.mark.parametrize("end", ["raise SystemExit(5)", "", "import os; os.kill(os.getpid(), 9)"])
def test_the_end_of_a_required_process_ends_the_graph_with_a_failure(
    run: Callable[..., Launcher], log: Log, end: str
) -> None:
    """ros2 launch returns 0 here: a supervisor above it would think that all went well."""
    code = f"import sys; sys.stdin.read()\n{end}"
    launcher = run(process("polite-1", python(POLITE)), process("needed-2", python(code), required=True, respawn=True))
    assert code_of(launcher) == 1
    assert log.of(Exited)[0].process == "needed-2"
    (stopping,) = log.of(Stopping)
    assert stopping.reason.startswith("required process needed-2 has ended with exit code")
    assert len(log.of(Started)) == 2


# --- stopping --------------------------------------------------------------------------------------------------------


def test_stop_asks_with_sigint(run: Callable[..., Launcher], log: Log) -> None:
    launcher = run(process("polite-1", python(POLITE)))
    log.wait_for_line("polite-1")
    assert launcher.stop() == 0
    assert [event.signal for event in log.of(Signalled)] == ["SIGINT"]
    (exited,) = log.of(Exited)
    assert (exited.code, exited.expected) == (0, True)


def test_stop_escalates_to_sigterm(run: Callable[..., Launcher], log: Log) -> None:
    launcher = run(process("term-1", python(ONLY_TERM), sigterm_after_s=0.2))
    log.wait_for_line("term-1")
    assert launcher.stop() == 0
    assert [event.signal for event in log.of(Signalled)] == ["SIGINT", "SIGTERM"]


def test_stop_escalates_to_sigkill_and_that_is_a_failure(run: Callable[..., Launcher], log: Log) -> None:
    launcher = run(
        process("stubborn-1", python(STUBBORN), sigterm_after_s=0.1, sigkill_after_s=0.1),
        process("polite-2", python(POLITE)),
    )
    log.wait_for_line("stubborn-1")
    log.wait_for_line("polite-2")
    assert launcher.stop() == 1
    of_stubborn = [event.signal for event in log.of(Signalled) if event.process == "stubborn-1"]
    assert of_stubborn == ["SIGINT", "SIGTERM", "SIGKILL"]
    assert {event.process: event.code for event in log.of(Exited)} == {"stubborn-1": -9, "polite-2": 0}


def test_further_requests_do_not_wait(run: Callable[..., Launcher], log: Log) -> None:
    launcher = run(process("stubborn-1", python(STUBBORN), sigterm_after_s=3600, sigkill_after_s=3600))
    log.wait_for_line("stubborn-1")
    for count, name in enumerate(["SIGINT", "SIGTERM", "SIGKILL"], start=1):
        launcher.request_stop("ctrl-c")
        until(lambda count=count: len(log.of(Signalled)) == count, name)
        assert log.of(Signalled)[-1].signal == name
    assert code_of(launcher) == 1
    assert [event.urgency for event in log.of(Stopping)] == [1, 2, 3]


class Kernel:
    """Refuses signals to chosen processes, as the real one does where they belong to another user."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.foreign: set[int] = set()
        for name in ("kill", "killpg"):
            monkeypatch.setattr(os, name, self._refusing(getattr(os, name)))

    def _refusing(self, send: Callable[[int, int], None]) -> Callable[[int, int], None]:
        def refuse(pid: int, number: int) -> None:
            if pid in self.foreign:
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
            send(pid, number)

        return refuse

    def release(self) -> None:
        for pid in self.foreign.copy():
            self.foreign.discard(pid)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    kernel = Kernel(monkeypatch)
    yield kernel
    kernel.release()


def test_what_may_not_be_signalled_is_told_and_left_behind(
    run: Callable[..., Launcher], log: Log, kernel: Kernel
) -> None:
    """launch-prefix="sudo": the first refused signal killed the task that ends processes, and the graph hung."""
    launcher = run(
        process("sudo-1", python(WAIT), sigterm_after_s=0.1, sigkill_after_s=0.1), process("polite-2", python(POLITE))
    )
    log.wait_for_line("sudo-1")
    log.wait_for_line("polite-2")
    (pid,) = (event.pid for event in log.of(Started) if event.process == "sudo-1")
    kernel.foreign.add(pid)
    launcher.request_stop("ctrl-c")
    assert code_of(launcher) == 1
    refused = [NotSignalled("sudo-1", pid, f"SIG{name}", "Operation not permitted") for name in ("INT", "TERM", "KILL")]
    assert log.of(NotSignalled) == refused
    assert log.of(Abandoned) == [Abandoned("sudo-1", (pid,))]
    assert {event.process: event.code for event in log.of(Exited)} == {"polite-2": 0}
    assert alive(pid)


def test_what_ends_though_it_may_not_be_signalled_is_no_leftover(
    run: Callable[..., Launcher], log: Log, kernel: Kernel
) -> None:
    code = "import sys, time; print('ready'); time.sleep(0.5)"
    launcher = run(process("sudo-1", python(code)))
    log.wait_for_line("sudo-1")
    kernel.foreign.add(log.of(Started)[0].pid)
    launcher.request_stop("ctrl-c")
    assert code_of(launcher) == 1  # the graph was asked to stop it, and could not
    kernel.foreign.clear()
    assert (len(log.of(NotSignalled)), log.of(Abandoned)) == (1, [])
    assert [event.code for event in log.of(Exited)] == [0]


def test_leftovers_that_may_not_be_ended_are_told(
    run: Callable[..., Launcher], log: Log, kernel: Kernel, tmp_path: Path
) -> None:
    """PermissionError from the sweep ended the launcher with a traceback."""
    code = (
        f"import subprocess, sys\nsubprocess.Popen({list(python(WAIT))!r}, stdout=subprocess.DEVNULL)\nprint('ready')"
    )
    gate = "\nsys.stdin = open(sys.argv[1]); sys.stdin.read()"
    fifo = tmp_path / "gate"
    os.mkfifo(fifo)
    launcher = run(process("parent-1", python(code + gate, str(fifo))))
    log.wait_for_line("parent-1")
    kernel.foreign.add(log.of(Started)[0].pid)  # also the id of its group
    fifo.open("w").close()
    assert code_of(launcher) == 1
    (leftovers,) = log.of(Leftovers)
    assert log.of(Abandoned) == [Abandoned("parent-1", leftovers.pids)]
    assert [event.code for event in log.of(Exited)] == [0]


def test_a_defect_while_ending_a_process_surfaces(
    run: Callable[..., Launcher], log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was lost with its task, and the launcher waited for ever for a process that nobody ended."""

    def broken(_child: Child, _number: signal.Signals) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(Child, "send", broken)
    launcher = Launcher(plan(process("polite-1", python(POLITE))), on_event=log).start()
    log.wait_for_line("polite-1")
    launcher.request_stop("ctrl-c")
    with pytest.raises(ZeroDivisionError, match="a defect"):
        launcher.wait(DEADLINE_S)
    assert not alive(log.of(Started)[0].pid)  # the guard saw to that


def test_children_take_sigint_even_where_the_launcher_ignores_it(log: Log) -> None:
    """A script's background jobs inherit an ignored SIGINT; nodes started from there could not be stopped with it."""
    code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert code_of(Launcher(plan(process("child-1", python(code))), on_event=log).start()) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert log.lines("child-1") == ["False"]


# --- nothing is left behind ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("child", [POLITE, STUBBORN])
def test_what_a_dead_process_leaves_is_ended_before_it_starts_again(
    run: Callable[..., Launcher], log: Log, child: str
) -> None:
    launcher = run(process("parent-1", python(PARENT, child), respawn=True, respawn_limit=1))
    assert code_of(launcher) == 1
    children = [int(line.split()[1]) for line in log.lines("parent-1") if line.startswith("child")]
    assert len(children) == 2
    assert [pid for pid in children if alive(pid)] == []
    assert [set(event.pids) for event in log.of(Leftovers)] == [{pid} for pid in children]
    order = [type(event) for event in log if isinstance(event, Started | Leftovers | Exited)]
    assert order == [Started, Leftovers, Exited] * 2


LAUNCHER = """
import sys
from pathlib import Path
from evergreen.launch.errors import Place
from evergreen.launch.launcher import Launcher
from evergreen.launch.plan import LaunchPlan, ProcessPlan
import os
def process(name, code, *arguments):
    return ProcessPlan(name=name, command=(sys.executable, "-I", "-S", "-u", "-c", code, *arguments),
        environment=dict(os.environ), cwd=None, output="screen", respawn=False, respawn_delay_s=0.0, respawn_limit=-1,
        required=False, sigterm_after_s=5.0, sigkill_after_s=5.0, node="", place=Place(Path("x"), 1, "executable"))
def show(event):
    print(type(event).__name__, event.process, getattr(event, "pid", getattr(event, "line", "")), flush=True)
plan = LaunchPlan(Path("x"), (process("polite-1", sys.argv[1]), process("stubborn-2", sys.argv[2])), {})
Launcher(plan, on_event=show).start().wait()
"""


def processes_below(pid: int) -> dict[int, str]:
    """Child processes of all its threads with their command lines."""
    lists = [file.read_text().split() for file in Path(f"/proc/{pid}/task").glob("*/children")]
    return {int(child): Path(f"/proc/{child}/cmdline").read_text() for children in lists for child in children}


@pytest.mark.parametrize("guarded", [True, False])
def test_killing_the_launcher_ends_its_children(guarded: bool) -> None:
    """The guard ends even the stubborn ones; without it the kernel still sends SIGTERM."""
    command = [sys.executable, "-c", LAUNCHER, POLITE, STUBBORN if guarded else POLITE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
        pids, ready = [], 0
        assert launcher.stdout is not None
        while ready < 2:
            kind, _, rest = launcher.stdout.readline().split()
            pids += [int(rest)] if kind == "Started" else []
            ready += rest == "ready"
        if not guarded:
            (guard,) = (pid for pid, line in processes_below(launcher.pid).items() if "guard.py" in line)
            os.kill(guard, signal.SIGKILL)
        launcher.kill()
        until(lambda: not any(alive(pid) for pid in pids), f"the end of {pids}")
