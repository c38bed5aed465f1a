"""`evergreen launch`: what `ros2 launch` does with an XML launch file, without needing it installed."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from evergreen.commands import Command
from evergreen.launch.declared import DeclaredArgument, declared_arguments
from evergreen.launch.document import ENDINGS
from evergreen.launch.errors import LaunchError
from evergreen.launch.events import Observer
from evergreen.launch.expand import make_plan
from evergreen.launch.packages import BRINGUP, find_launch_file
from evergreen.launch.plan import LaunchPlan, ProcessPlan, TemporaryFile
from evergreen.launch.report import Console, LogFolder, all_of, as_json, wants_colour
from evergreen.launch.supervisor import Supervisor
from evergreen.launch.writer import Writer

DETAILS = """\
Ctrl-C sends SIGINT to every process, then SIGTERM and SIGKILL, 5 s after each other, to those that stay. A second
and a third Ctrl-C do not wait. The exit code is 1 where a process with on_exit="shutdown" ended by itself, one
could not be started, was given up because its configuration is wrong, had to be killed or could not be, or a graph
that ended by itself had a failure."""

SHOWN_LINES = 12
"""Of a parameter file in the dry run; a URDF would hide the rest. --json shows all."""
SIGNALS = {
    signal.SIGINT: "user interrupted with ctrl-c (SIGINT)",
    signal.SIGTERM: "asked to terminate (SIGTERM)",
    signal.SIGHUP: "the terminal was closed (SIGHUP)",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; names and letters are those of ros2 launch where it has them."""
    parser.usage = "%(prog)s [options] FILE|PACKAGE [FILE] [name:=value …]"
    parser.add_argument("target", metavar="FILE|PACKAGE", help="a launch file, or the package that has it")
    parser.add_argument(
        "rest", nargs="*", metavar="name:=value", help="after a package its launch file; then arguments"
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument("-s", "--show-args", "--show-arguments", action="store_true", help="list the file's arguments")
    only.add_argument(
        "-p", "--print", "--dry-run", dest="dry_run", action="store_true", help="print the command lines, start nothing"
    )
    parser.add_argument(
        "--json", action="store_true", help="write JSON: one object, or while running one for each event"
    )
    parser.add_argument(
        "-a", "--show-all-subprocesses-output", dest="everything", action="store_true", help="whatever `output` says"
    )
    parser.add_argument(
        "--log-dir", type=Path, metavar="FOLDER", help="write everything there as well; default: nowhere"
    )


def run(options: argparse.Namespace) -> int:
    """Do what was asked and return the exit code."""
    file, words = resolve_target(options.target, options.rest)
    if options.show_args:
        return _show_arguments(declared_arguments(file), as_json=options.json)
    plan = make_plan(file, parse_arguments(words))
    if options.dry_run:
        return _print_plan(plan, as_json=options.json)
    return _launch(plan, options)


def resolve_target(target: str, rest: Sequence[str]) -> tuple[Path, list[str]]:
    """The launch file and the remaining words; as in ros2 launch an existing file, else a package and a file's name."""
    if Path(target).is_file():
        return Path(target), list(rest)
    if target.endswith(ENDINGS) or "/" in target:
        name = Path(target).name
        raise LaunchError(f"launch file {target} does not exist; from a package: evergreen launch {BRINGUP} {name}")
    if not rest or ":=" in rest[0]:
        raise LaunchError(f"{target!r} is no file; after a package's name its launch file's name is needed")
    return find_launch_file(target, rest[0]), list(rest[1:])


def parse_arguments(words: Sequence[str]) -> dict[str, str]:
    """`name:=value` words as a mapping; the last one of a name wins."""
    arguments = {}
    for word in words:
        name, assigned, value = word.partition(":=")
        if not name or not assigned:
            raise LaunchError(f"launch argument {word!r} is malformed; write name:=value")
        arguments[name] = value
    return arguments


# --- showing ---------------------------------------------------------------------------------------------------------


def _show_arguments(arguments: Sequence[DeclaredArgument], *, as_json: bool) -> int:
    if as_json:
        print(json.dumps([_argument_as_dict(argument) for argument in arguments], indent=2))
        return 0
    print("Arguments (pass arguments as '<name>:=<value>'):")
    for argument in arguments:
        print(f"\n    '{argument.name}':\n        {argument.description or 'no description given'}")
        if argument.choices:
            print(f"        (one of: {', '.join(argument.choices)})")
        print("        (must be given)" if argument.default is None else f"        (default: '{argument.default}')")
    if not arguments:
        print("\n  No arguments.")
    return 0


def _argument_as_dict(argument: DeclaredArgument) -> dict[str, object]:
    return {
        "name": argument.name,
        "default": argument.default,
        "description": argument.description,
        "choices": list(argument.choices),
        "place": str(argument.place),
    }


def plan_as_dict(plan: LaunchPlan) -> dict[str, object]:
    """The plan for programs; of the environment only what differs from the launcher's."""
    return {"file": str(plan.file), "processes": [_process_as_dict(plan, process) for process in plan.processes]}


def _process_as_dict(plan: LaunchPlan, process: ProcessPlan) -> dict[str, object]:
    return {
        "name": process.name,
        "node": process.node,
        "command": [{"file": word.content} if isinstance(word, TemporaryFile) else word for word in process.command],
        "environment": _difference(plan, process),
        "cwd": process.cwd,
        "output": process.output,
        "respawn": process.respawn,
        "respawn_delay_s": process.respawn_delay_s,
        "respawn_limit": process.respawn_limit,
        "required": process.required,
        "sigterm_after_s": process.sigterm_after_s,
        "sigkill_after_s": process.sigkill_after_s,
        "place": str(process.place),
    }


def _difference(plan: LaunchPlan, process: ProcessPlan) -> dict[str, str | None]:
    changed: dict[str, str | None] = {
        name: value for name, value in process.environment.items() if plan.environment.get(name) != value
    }
    return changed | {name: None for name in plan.environment if name not in process.environment}


def _print_plan(plan: LaunchPlan, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps(plan_as_dict(plan), indent=2))
        return 0
    for process in plan.processes:
        print(f"[{process.name}] {process.place}")
        files = [word for word in process.command if isinstance(word, TemporaryFile)]
        print("  " + " ".join(_shown(word, files) for word in process.command))
        for index, file in enumerate(files, start=1):
            print(f"  file {index}:\n{_shortened(file.content)}")
        for name, value in _difference(plan, process).items():
            print(f"  environment: {name}={value}" if value is not None else f"  environment: no {name}")
        for trait in _traits(process):
            print(f"  {trait}")
    return 0


def _shown(word: str | TemporaryFile, files: Sequence[TemporaryFile]) -> str:
    return f"<file {files.index(word) + 1}>" if isinstance(word, TemporaryFile) else shlex.quote(word)


def _shortened(content: str) -> str:
    lines = content.splitlines()
    if len(lines) > SHOWN_LINES:
        lines = [*lines[:SHOWN_LINES], f"… and {len(lines) - SHOWN_LINES} more lines"]
    return "\n".join(f"    {line}" for line in lines)


def _traits(process: ProcessPlan) -> list[str]:
    traits = []
    if process.cwd is not None:
        traits.append(f"in {process.cwd}")
    if process.respawn:
        limit = f", {process.respawn_limit} times" if process.respawn_limit >= 0 else ""
        traits.append(f"started again {process.respawn_delay_s:g} s after its end{limit}")
    if process.required:
        traits.append("required: its end ends the graph")
    return traits


# --- running ---------------------------------------------------------------------------------------------------------


def _launch(plan: LaunchPlan, options: argparse.Namespace) -> int:
    text_of = as_json if options.json else Console(plan, colour=wants_colour(sys.stdout), everything=options.everything)
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(Writer(sys.stdout.fileno(), text_of, sys.stdout.encoding))
        show: Observer = writer
        if options.log_dir is not None:
            show = all_of(stack.enter_context(LogFolder(options.log_dir)), writer)
            if not options.json:
                writer.say(f"[INFO] [launch]: log files are in {options.log_dir.absolute()}")
        return asyncio.run(_follow(Supervisor(plan, show), writer))


async def _follow(supervisor: Supervisor, writer: Writer) -> int:
    loop = asyncio.get_running_loop()

    def fail(error: OSError) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: leaving the writer raises it
            loop.call_soon_threadsafe(supervisor.observer_failed, error)

    writer.on_failure = fail
    for number, reason in SIGNALS.items():
        if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue  # nohup means it
        loop.add_signal_handler(number, supervisor.request_stop, reason)
    return await supervisor.run()


COMMAND = Command(
    summary="run a ROS 2 XML launch file, as ros2 launch would",
    configure=configure,
    run=run,
    details=DETAILS,
    examples=(
        "evergreen launch evergreen_bringup robot.launch.xml port:=/dev/ttyACM0",
        "evergreen launch evergreen_bringup demo.launch.xml --show-args",
        "evergreen launch my.launch.xml --dry-run",
    ),
)
