"""Podman or docker, as programs: build, tag, push. No shell, no secret on a command line."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evergreen.release.errors import ToolError

NAMES = ("podman", "docker")
STOP_S = 10.0
"""For a build or push to end in order after Ctrl-C."""
_TAIL_LINES = 6
"""Of what a failed tool wrote: enough to see why, not the whole build."""


@dataclass(frozen=True, slots=True)
class Engine:
    """One of them.

    Attributes:
        program: path of the program.
        is_podman: podman, or something that behaves as it.
        environment: variables to run it with, beside one's own.
    """

    program: str
    is_podman: bool
    environment: Mapping[str, str] = field(default_factory=dict)

    def has(self, image: str) -> bool:
        """Whether the image is on this computer."""
        return self._run(["image", "inspect", image], check=False).returncode == 0

    def id_of(self, image: str) -> str:
        """Hash of a local image's configuration.

        Raises:
            ToolError: it is not here.
        """
        return self._run(["image", "inspect", "--format", "{{.Id}}", image]).stdout.strip().removeprefix("sha256:")

    def digest_of(self, image: str, repository: str) -> str:
        """The digest by which a registry knows a local image that was pulled; of all platforms where it has several.

        Args:
            image: which.
            repository: with the registry, `host/name`.

        Raises:
            ToolError: it is not here, or did not come from there.
        """
        (known,) = json.loads(self._run(["image", "inspect", image]).stdout)
        names = [str(name).partition("@") for name in known.get("RepoDigests") or ()]
        digests = [digest for name, _, digest in names if name == repository]
        of_all = [digest for digest in digests if digest != known.get("Digest")]
        if not digests:
            raise ToolError(f"{image} has no digest of {repository}")
        return next(iter(of_all or digests))

    def pull(self, image: str, platform: str = "") -> None:
        """Fetch an image.

        Raises:
            ToolError: it cannot be had.
        """
        chosen = ["--platform", platform] if platform else []
        self._run(["pull", *chosen, *self._tls(image), image])

    def build_words(
        self, dockerfile: Path, context: Path, image: str, arguments: Mapping[str, str], platform: str
    ) -> list[str]:
        """The command that builds."""
        words = [self.program, "build", "--file", str(dockerfile), "--tag", image]
        if self.is_podman:
            words += ["--format", "docker"]  # the other format drops HEALTHCHECK
        if platform:
            words += ["--platform", platform]
        for name, value in arguments.items():
            words += ["--build-arg", f"{name}={value}"]
        return [*words, str(context)]

    def build(self, words: Sequence[str]) -> None:
        """Run what `build_words` made.

        Raises:
            ToolError: it failed.
        """
        self._run(words[1:])

    def tag(self, image: str, other: str) -> None:
        """Give an image another name."""
        self._run(["tag", image, other])

    def push_words(self, image: str) -> list[str]:
        """The command that pushes, but for the file that takes the digest."""
        return [self.program, "push", *self._tls(image), image]

    def push(self, image: str) -> str:
        """Push; returns the manifest's digest as the registry knows it.

        Raises:
            ToolError: it failed.
        """
        words = self.push_words(image)[1:]
        if not self.is_podman:
            self._run(words)
            listed = json.loads(self._run(["image", "inspect", "--format", "{{json .RepoDigests}}", image]).stdout)
            repository = image.rpartition(":")[0]
            return next((d.partition("@")[2] for d in listed or () if d.startswith(f"{repository}@")), "")
        with tempfile.TemporaryDirectory(prefix="evergreen-release-") as folder:
            digest = Path(folder, "digest")
            self._run([*words[:-1], "--digestfile", str(digest), words[-1]])
            return digest.read_text(encoding="ascii").strip()

    def remove(self, image: str) -> None:
        """Forget a local image's name, and the image with its last one."""
        self._run(["image", "rm", image], check=False)

    @contextlib.contextmanager
    def signed_in(self, registry: str, user: str, password: str) -> Iterator[Engine]:
        """Signed in at a registry.

        The password goes in by standard input. Podman keeps it in a file of ours that is removed afterwards; docker
        keeps it where it keeps all of them.

        Raises:
            ToolError: the registry does not take it.
        """
        words = ["login", "--username", user, "--password-stdin", *self._tls(registry), registry]
        if not self.is_podman:
            self._run(words, text=password)
            yield self
            return
        with tempfile.TemporaryDirectory(prefix="evergreen-release-") as folder:
            mine = {**self.environment, "REGISTRY_AUTH_FILE": str(Path(folder, "auth.json"))}
            engine = Engine(self.program, self.is_podman, mine)
            engine._run(words, text=password)
            yield engine

    def _tls(self, image: str) -> list[str]:
        """Docker takes a registry on the loopback interface without TLS by itself."""
        return ["--tls-verify=false"] if self.is_podman and is_loopback(image.partition("/")[0]) else []

    def _run(self, words: Sequence[str], *, text: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        process = subprocess.Popen(
            [self.program, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=os.environ | self.environment,
        )
        try:
            output, errors = process.communicate(text)
        except BaseException:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
            process.kill()
            process.wait()
            raise
        if check and process.returncode:
            tail = [line.strip() for line in (errors or output).splitlines() if line.strip()][-_TAIL_LINES:]
            what = f"{Path(self.program).name} {words[0]}"
            raise ToolError(f"{what} failed ({process.returncode}): {' / '.join(tail) or 'it said nothing'}")
        return subprocess.CompletedProcess(words, process.returncode, output, errors)


def find(wanted: str = "") -> Engine:
    """The engine asked for, by name or path, else podman, else docker.

    Raises:
        ToolError: there is none.
    """
    for name in (wanted,) if wanted else NAMES:
        if program := shutil.which(name):
            said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
            return Engine(program, "podman" in said.lower())
    if wanted:
        raise ToolError(f"container engine {wanted!r} is not installed; leave --engine out to take podman or docker")
    raise ToolError(
        "neither podman nor docker is installed, and a model image needs one: `sudo apt install podman`; or deliver "
        "without an image of its own: --by artifact or --by download"
    )


def is_loopback(registry: str) -> bool:
    """Whether `host:port` is on this computer, where TLS protects from nobody."""
    host = registry.rpartition(":")[0] if registry.rpartition(":")[2].isdecimal() else registry
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
