"""The grammar and the meaning of `$(…)`."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from evergreen.launch.errors import LaunchError, Place
from evergreen.launch.substitutions import Call, Template, evaluate, parse

PLACE = Place(Path("/launch/a.launch.xml"), 7, "let")


@dataclass
class Scope:
    file: Path = PLACE.file
    environment: dict[str, str] = field(default_factory=lambda: {"HOME": "/home/me", "PATH": "/usr/bin:/bin"})
    variables: dict[str, str] = field(
        default_factory=lambda: {"x": "1", "text": "a b", "empty": "", "yes": "true", "no": "False"}
    )

    def variable(self, name: str) -> str | None:
        return self.variables.get(name)

    def prefix(self, package: str) -> Path:
        return Path("/opt") / package

    def executable(self, package: str, name: str) -> Path:
        return Path("/opt") / package / "lib" / package / name


def text(source: str, scope: Scope | None = None) -> str:
    return evaluate(parse(source, PLACE), scope or Scope(), PLACE)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("plain", "plain"),
        ("", ""),
        ("$(var x)", "1"),
        ("a$(var x)b$(var text)c", "a1ba bc"),
        ("$(var nothing fallback)", "fallback"),
        ("$(var nothing '')", ""),
        ("$(var nothing 'with spaces (and brackets)')", "with spaces (and brackets)"),
        ("$(var nothing \"double $(var x) 'inside'\")", "double 1 'inside'"),
        ("$(var nothing 'nested $(env HOME)/x')", "nested /home/me/x"),
        ("$(env HOME)", "/home/me"),
        ("$(env NOT_THERE $(var x)$(var x))", "11"),
        (r"\$(var x)", "$(var x)"),
        (r"back\slash and \\ two", r"backslash and \ two"),
        ("5 $ and $x", "5 $ and $x"),
        ("$(dirname)/b", "/launch/b"),
        ("$(filename)", "/launch/a.launch.xml"),
        ("$(find-pkg-prefix p)", "/opt/p"),
        ("$(find-pkg-share p)/urdf", "/opt/p/share/p/urdf"),
        ("$(exec-in-pkg run p)", "/opt/p/lib/p/run"),
        ("$(not $(var no))", "true"),
        ("$(and $(var yes) on)", "true"),
        ("$(and $(var yes) $(var no))", "false"),
        ("$(or 0 1)", "true"),
        ("$(equals $(var x) 1.0)", "true"),
        ("$(equals True 1)", "true"),
        ("$(equals abc abd)", "false"),
        ("$(not-equals abc abd)", "true"),
        ("$(if $(var yes) a b)", "a"),
        ("$(if $(var no) a)", ""),
        ("$(if $(equals $(var x) 1) 'x is one' other)", "x is one"),
    ],
)
def test_stands_for(source: str, expected: str) -> None:
    assert text(source) == expected


def test_parse_keeps_the_structure() -> None:
    template = parse("a$(env N $(var d))", PLACE)
    assert template == Template(("a", Call("env", (Template(("N",)), Template((Call("var", (Template(("d",)),)),))))))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("$(var x", "expected ')'"),
        ("$(var  x)", "separated by one space"),
        ("$(var x )", "an argument is missing"),
        ("$()", "name is missing"),
        ("$(var 'x)", "the quotation ' is not closed"),
        ("$(var a(b)", "expected ')' or one space"),
        ("$(vra x)", "unknown substitution $(vra …)"),
        ("$(var)", "takes 1 or 2 argument(s), not 0"),
        ("$(dirname x)", "takes 0 argument(s), not 1"),
        ("$(eval 1+1)", "would run code"),
        ("$(command 'rm -rf /')", "would run a command"),
        ("$(equals $(var x) '')", "Jazzy compares with '[]'"),
        ("$(any true)", "Jazzy's XML frontend fails on it"),
    ],
)
def test_refuses_with_file_line_and_element(source: str, message: str) -> None:
    with pytest.raises(LaunchError, match=re.escape(message)) as caught:
        parse(source, PLACE)
    assert str(caught.value).startswith("/launch/a.launch.xml:7: <let>: ")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("$(var nothing)", "launch configuration 'nothing' does not exist"),
        ("$(env NOT_THERE)", "environment variable 'NOT_THERE' is not set"),
        ("$(not $(var text))", "'a b' is neither true nor false"),
        ("$(file-content /does/not/exist)", "No such file"),
        ("$(find-exec no-such-program-here)", "no executable 'no-such-program-here' on the PATH"),
    ],
)
def test_cannot_be_resolved(source: str, message: str) -> None:
    with pytest.raises(LaunchError, match=re.escape(message)):
        text(source)


def test_dirname_is_refused_where_jazzy_reads_it_differently() -> None:
    """After an include from another folder, ros2 launch on Jazzy takes $(dirname) for that folder."""
    with pytest.raises(LaunchError, match=r"reads \$\(dirname\) as /other"):
        text("$(dirname)", Scope(file=Path("/other/b.launch.xml")))


def test_anonymous_names_are_stable_in_a_launch_and_unique_between_launches() -> None:
    one, other = Scope(), Scope()
    assert text("$(anon talker)", one) == text("$(anon talker)", one)
    assert text("$(anon talker)", one) != text("$(anon talker)", other)
    assert re.fullmatch(r"talker_\w+", text("$(anon talker)", one))
