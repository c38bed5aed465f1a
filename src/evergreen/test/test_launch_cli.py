"""The `evergreen` command and `evergreen launch`, from argument to exit code."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from evergreen import cli, commands
from evergreen.commands.launch import parse_arguments, resolve_target
from evergreen.launch.errors import LaunchError, Place
from evergreen.launch.events import (
    Abandoned,
    Dropped,
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
from evergreen.launch.plan import LaunchPlan, ProcessPlan
from evergreen.launch.report import Console, LogFolder, all_of, as_json, wants_colour
from evergreen.launch.writer import MAX_WAITING_BYTES, Writer
from vla_core.errors import ConfigError, ModelError

DEADLINE_S = 30.0
PYTHON = f"{sys.executable} -I -S -u -c"


# --- the command -----------------------------------------------------------------------------------------------------


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "launch" in commands.names()
    for name, command in commands.every():
        assert f"  {name}" in out
        assert command.summary in out
        assert command.summary == command.summary.strip().rstrip(".")


@pytest.mark.parametrize("name", commands.names())
@pytest.mark.parametrize("words", [("{}", "--help"), ("help", "{}")])
def test_every_command_explains_itself(name: str, words: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([word.format(name) for word in words]) == 0
    out = capsys.readouterr().out
    assert f"usage: evergreen {name}" in out
    assert "examples:\n  evergreen" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("evergreen ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "usage: evergreen"),
        (["lunch"], "error: unknown command 'lunch'; did you mean `evergreen launch`?"),
        (["quux"], "error: unknown command 'quux'; there are:"),
        (["--verison"], "error: unknown option '--verison'"),
        (["launch"], "the following arguments are required"),
        (["launch", "none.launch.xml"], "error: launch file none.launch.xml does not exist"),
        (["launch", "some_package"], "after a package's name its launch file's name is needed"),
    ],
)
def test_wrong_usage(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("x is 3; allowed: 4"), 2, "error: x is 3; allowed: 4\n"),
        (ModelError("no such joint"), 1, "error: no such joint\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_exit_codes(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_options: object) -> int:
        raise error

    monkeypatch.setattr(commands, "load", lambda _name: commands.Command("fails", lambda _parser: None, run))
    assert cli.main(["launch"]) == code
    assert capsys.readouterr().err == said


# --- evergreen launch, without running -------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "two.launch.xml"
    path.write_text(
        f"""<launch>
  <arg name="who" description="whom to greet"><choice value="you"/><choice value="all"/></arg>
  <arg name="times" default="$(env TIMES 1)"/>
  <executable name="greeter" cmd="{PYTHON} 'import sys; print(*sys.argv[1:])' hello $(var who) $(var times)"
              output="screen"/>
  <executable name="quiet" cmd="{PYTHON} 'print(123)'"><env name="E" value="1"/></executable>
</launch>"""
    )
    return path


def test_show_args(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["launch", str(file), "--show-args"]) == 0
    out = capsys.readouterr().out
    assert "'who':\n        whom to greet\n        (one of: you, all)\n        (must be given)" in out
    assert "'times':\n        no description given\n        (default: '$(env TIMES 1)')" in out
    assert cli.main(["launch", str(file), "--show-args", "--json"]) == 0
    assert [argument["name"] for argument in json.loads(capsys.readouterr().out)] == ["who", "times"]


def test_dry_run(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["launch", str(file), "who:=you", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert f"[greeter-1] {file}:4: <executable>" in out
    assert "hello you 1" in out
    assert "environment: E=1" in out
    assert cli.main(["launch", str(file), "who:=you", "--dry-run", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)["processes"]
    assert first["command"][-3:] == ["hello", "you", "1"]
    assert second["environment"] == {"E": "1"}


def test_targets_and_arguments(file: Path) -> None:
    assert resolve_target(str(file), ["a:=1"]) == (file, ["a:=1"])
    with pytest.raises(LaunchError, match="package 'no_such_package' is not installed"):
        resolve_target("no_such_package", ["x.launch.xml"])
    assert parse_arguments(["a:=1", "b:=x:=y", "c:=", "a:=2"]) == {"a": "2", "b": "x:=y", "c": ""}
    with pytest.raises(LaunchError, match="malformed; write name:=value"):
        parse_arguments(["a=1"])


# --- evergreen launch, running ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def evergreen(*words: str) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-m", "evergreen.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_runs_to_the_end_and_writes_a_log_folder(file: Path, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    with evergreen("launch", str(file), "who:=all", "times:=2", "--log-dir", str(logs)) as process:
        out, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, err) == (0, "")
    assert "[greeter-1] hello all 2\n" in out
    assert "[INFO] [greeter-1]: process started with pid [" in out
    assert "[INFO] [greeter-1]: process has finished cleanly [pid " in out
    assert "[quiet-2] 123" not in out
    assert "\x1b" not in out
    assert (logs / "quiet-2.log").read_text().endswith(" [stdout] 123\n")
    assert "[greeter-1] hello all 2" in (logs / "launch.log").read_text()


def test_a_configuration_error_is_one_line_and_2(file: Path) -> None:
    with evergreen("launch", str(file), "who:=nobody") as process:
        out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 2
    assert err == f"error: {file}:2: <arg>: launch argument 'who' is 'nobody'; allowed: you, all\n"
    assert out == ""


@pytest.mark.parametrize(
    ("number", "reason"),
    [(signal.SIGINT, "user interrupted with ctrl-c (SIGINT)"), (signal.SIGTERM, "asked to terminate (SIGTERM)")],
)
def test_a_signal_stops_the_graph_and_that_is_no_failure(tmp_path: Path, number: signal.Signals, reason: str) -> None:
    path = tmp_path / "wait.launch.xml"
    code = "import signal, sys; signal.signal(2, lambda *_: sys.exit(0)); print(1); signal.pause()"
    path.write_text(f'<launch><executable name="w" cmd="{PYTHON} \'{code}\'" output="screen"/></launch>')
    with evergreen("launch", str(path), "--json") as process:
        assert process.stdout is not None
        events = [json.loads(process.stdout.readline()) for _ in range(2)]
        assert [event["event"] for event in events] == ["started", "output"]
        process.send_signal(number)
        out, err = process.communicate(timeout=DEADLINE_S)
    rest = [json.loads(line) for line in out.splitlines()]
    assert (process.returncode, err) == (0, "")
    assert [event["event"] for event in rest] == ["stopping", "signalled", "exited"]
    assert rest[0]["reason"] == reason
    assert rest[2]["code"] == 0


def test_a_terminals_ctrl_c_reaches_each_process_once(tmp_path: Path) -> None:
    """In the launcher's own process group a node would hear it twice, and die in the middle of its shutdown."""
    code = "import signal as s; s.signal(2, lambda *_: print(1234567)); print(7654321); s.pause(); s.pause()"
    path = tmp_path / "wait.launch.xml"
    path.write_text(
        f'<launch><executable name="w" cmd="{PYTHON} \'{code}\'" output="screen" sigterm_timeout="0.5"/></launch>'
    )
    inside = "import os, sys; os.login_tty(0); os.execv(sys.executable, [sys.executable, '-m', *sys.argv[1:]])"
    command = [sys.executable, "-c", inside, "evergreen.cli", "launch", str(path)]
    controller, terminal = os.openpty()
    with subprocess.Popen(command, stdin=terminal) as process:
        os.close(terminal)
        shown, pressed = b"", False
        with contextlib.suppress(OSError):  # the terminal's end
            while data := os.read(controller, 4096):
                shown += data
                if b"7654321" in shown and not pressed:
                    os.write(controller, b"\x03")
                    pressed = True
        assert process.wait(DEADLINE_S) == 0
    os.close(controller)
    lines = shown.decode().splitlines()
    assert sum(line.endswith(" 1234567") for line in lines) == 1
    assert any(line.startswith("\x1b[36m[w-1]\x1b[0m") for line in lines)


def test_a_terminal_that_does_not_read_stops_neither_the_graph_nor_a_signal(tmp_path: Path) -> None:
    """Printing blocked the event loop: nodes stood still on full pipes, and Ctrl-C did nothing."""
    path, marker = tmp_path / "talk.launch.xml", tmp_path / "said"
    code = (
        "import pathlib, signal, sys\nsignal.signal(2, lambda *_: sys.exit(0))\n"
        "for _ in range(40000): print('x' * 98)\n"
        "pathlib.Path(sys.argv[1]).touch()\nwhile True: signal.pause()"
    ).replace("\n", "&#10;")
    path.write_text(
        f'<launch><executable name="t" cmd="{PYTHON} &quot;{code}&quot; {marker}" output="screen"/></launch>'
    )
    controller, terminal = os.openpty()
    command = [sys.executable, "-m", "evergreen.cli", "launch", str(path)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal) as process:
        try:
            os.close(terminal)
            deadline_s = time.monotonic() + DEADLINE_S
            while not marker.exists():
                assert time.monotonic() < deadline_s, "the node could not say all that it had to say"
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()
            os.close(controller)


def test_nohup_is_respected(tmp_path: Path) -> None:
    path = tmp_path / "wait.launch.xml"
    path.write_text(f'<launch><executable name="w" cmd="{PYTHON} \'import signal; signal.pause()\'"/></launch>')
    command = f"trap '' HUP; exec {sys.executable} -m evergreen.cli launch {path} --json"
    with subprocess.Popen(["/bin/sh", "-c", command], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "started"
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert json.loads(process.stdout.readline())["reason"] == "asked to terminate (SIGTERM)"
        process.communicate(timeout=DEADLINE_S)


def test_a_reader_that_goes_away_stops_the_graph(tmp_path: Path) -> None:
    """`evergreen launch … | head -1` must not leave a robot running unseen."""
    path = tmp_path / "talk.launch.xml"
    code = "import time\nwhile True: print(1); time.sleep(0.01)".replace("\n", "&#10;")
    path.write_text(f'<launch><executable name="t" cmd="{PYTHON} \'{code}\'" output="screen"/></launch>')
    with evergreen("launch", str(path)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(DEADLINE_S) == 1
        assert process.stderr is not None
        assert process.stderr.read() == ""


# --- reports ---------------------------------------------------------------------------------------------------------


def plan(output: str) -> LaunchPlan:
    place = Place(Path("x.launch.xml"), 1, "node")
    process = ProcessPlan(
        name="node-1",
        command=("node",),
        environment={},
        cwd=None,
        output=output,
        respawn=False,
        respawn_delay_s=0.0,
        respawn_limit=-1,
        required=False,
        node="",
        place=place,
        sigterm_after_s=5.0,
        sigkill_after_s=5.0,
    )
    return LaunchPlan(Path("x.launch.xml"), (process,), {})


@pytest.mark.parametrize(
    ("output", "shown"), [("screen", "both"), ("both", "both"), ("full", "both"), ("log", "err"), ("own_log", "")]
)
def test_output_decides_what_is_shown(output: str, shown: str) -> None:
    console = Console(plan(output), colour=False)
    lines = [console(Output("node-1", "stdout", "o")), console(Output("node-1", "stderr", "e"))]
    assert lines == {"both": ["[node-1] o", "[node-1] e"], "err": [None, "[node-1] e"], "": [None, None]}[shown]


def test_console_says_what_ros2_launch_says() -> None:
    console = Console(plan("screen"), colour=False)
    events: tuple[Event, ...] = (
        Started("node-1", 7, 0),
        Exited("node-1", 7, 3, False, "node --x"),
        Respawning("node-1", 2.0),
        GivenUp("node-1", "why"),
        Signalled("node-1", "SIGINT"),
        Signalled("node-1", "SIGTERM"),
        Leftovers("node-1", (8, 9)),
        NotStarted("node-1", "no such file"),
        NotSignalled("node-1", 7, "SIGINT", "Operation not permitted"),
        Abandoned("node-1", (7,)),
        Stopping("because", 1),
        Dropped(3),
        Stopping("because", 2),
    )
    assert [console(event) for event in events] == [
        "[INFO] [node-1]: process started with pid [7]",
        "[ERROR] [node-1]: process has died [pid 7, exit code 3, cmd 'node --x'].",
        "[INFO] [node-1]: process is started again in 2 s",
        "[ERROR] [node-1]: process is not started again: why",
        "[INFO] [node-1]: sending signal 'SIGINT' to process[node-1]",
        "[ERROR] [node-1]: process[node-1] has not ended, escalating to 'SIGTERM'",
        "[WARNING] [node-1]: process left others behind [pids 8, 9], ending them",
        "[ERROR] [node-1]: process could not be started: no such file",
        "[ERROR] [node-1]: signal 'SIGINT' could not be sent to process [pid 7]: Operation not permitted",
        "[ERROR] [node-1]: may not be ended from here and goes on running [pids 7]",
        "[WARNING] [launch]: because",
        "[WARNING] [launch]: 3 lines are not shown: they came faster than they were read",
        "[WARNING] [launch]: because again: hurrying",
    ]


def test_colours_are_for_terminals_only() -> None:
    assert Console(plan("screen"), colour=True)(Output("node-1", "stdout", "o")) == "\x1b[36m[node-1]\x1b[0m o"
    with Path(os.devnull).open("w") as null:
        assert not wants_colour(null, {})
    controller, terminal = os.openpty()
    with os.fdopen(terminal, "w") as tty:
        assert wants_colour(tty, {})
        assert not wants_colour(tty, {"NO_COLOR": "1"})
    os.close(controller)


def test_log_folder_stamps_its_lines(tmp_path: Path) -> None:
    with LogFolder(tmp_path / "a/b", clock=lambda: 12.5) as log:
        tell = all_of(log, lambda _event: None)
        tell(Started("node-1", 7, 0))
        tell(Output("node-1", "stderr", "e"))
    assert (tmp_path / "a/b/launch.log").read_text().splitlines() == [
        "12.500000 [INFO] [node-1]: process started with pid [7]",
        "12.500000 [node-1] e",
    ]
    assert (tmp_path / "a/b/node-1.log").read_text() == "12.500000 [stderr] e\n"


def test_a_log_folder_that_fails_is_given_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LaunchError, match=r"log folder .*: Not a directory; choose another"):
        LogFolder(Path("/dev/null/logs"))
    (tmp_path / "launch.log").symlink_to("/dev/full")
    with LogFolder(tmp_path) as log:
        for _ in range(3):
            log(Started("node-1", 7, 0))
    assert capsys.readouterr().err == f"log folder {tmp_path}: No space left on device; logging ends\n"


# --- the writer ------------------------------------------------------------------------------------------------------


def test_lines_that_nobody_reads_are_left_out_and_counted() -> None:
    """There was no bound, since there was no queue: the launcher itself waited."""
    reader, descriptor = os.pipe()
    line, count = "x" * 1000, 3 * MAX_WAITING_BYTES // 1000
    received: list[bytes] = []

    def read() -> None:
        while data := os.read(reader, 1 << 16):
            received.append(data)

    reading = threading.Thread(target=read)
    with Writer(descriptor, Console(plan("screen"), colour=False)) as writer:
        for _ in range(count):
            writer(Output("node-1", "stdout", line))
        writer(Stopping("because", 1))
        reading.start()
    os.close(descriptor)
    reading.join(DEADLINE_S)
    os.close(reader)
    *lines, last = b"".join(received).decode().splitlines()
    shown = lines.count(f"[node-1] {line}")
    left_out = [text.removeprefix("[WARNING] [launch]: ").partition(" ") for text in lines if "[WARNING]" in text]
    assert shown + len(left_out) == len(lines)
    assert {text for _, _, text in left_out} == {"lines are not shown: they came faster than they were read"}
    assert shown + sum(int(number) for number, _, _ in left_out) == count
    assert last == "[WARNING] [launch]: because"
    assert MAX_WAITING_BYTES // 1100 < shown < count


def test_a_writer_without_a_reader_says_so_at_once_and_at_the_end() -> None:
    reader, descriptor = os.pipe()
    os.close(reader)
    failed = threading.Event()
    with pytest.raises(BrokenPipeError), Writer(descriptor, as_json) as writer:  # noqa: PT012  leaving raises
        writer.on_failure = lambda _error: failed.set()
        writer(Started("node-1", 7, 0))
        assert failed.wait(DEADLINE_S)
    with pytest.raises(BrokenPipeError):
        writer(Started("node-1", 7, 0))
    os.close(descriptor)


def test_a_non_blocking_terminal_is_waited_for() -> None:
    reader, descriptor = os.pipe()
    os.set_blocking(descriptor, False)
    lines = ["y" * 1000] * 200  # more than a pipe holds
    received: list[bytes] = []

    def read() -> None:
        while data := os.read(reader, 1 << 16):
            received.append(data)

    reading = threading.Thread(target=read)
    with Writer(descriptor, as_json) as writer:
        for line in lines:
            writer.say(line)
        reading.start()
    os.close(descriptor)
    reading.join(DEADLINE_S)
    os.close(reader)
    assert b"".join(received).decode().splitlines() == lines


def test_json_names_the_kind() -> None:
    assert json.loads(as_json(NotStarted("n-1", "why"))) == {"event": "not_started", "process": "n-1", "reason": "why"}


def test_help_is_quick() -> None:
    """`--help` must not import ROS, MuJoCo or anything else that takes seconds."""
    code = "import sys; from evergreen import cli; cli.main(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = done.stderr
    assert not any(f"'{module}'" in loaded for module in ("rclpy", "mujoco", "torch", "cv2", "numpy", "onnxruntime"))
