"""Where ROS packages are installed: the ament index, and the workspace of this checkout.

The rule by which a workspace comes in, as `source install/setup.bash` does elsewhere: where AMENT_PREFIX_PATH already
names `evergreen_bringup`, nothing changes. Otherwise the nearest folder `install/` that holds it, looked for from the
working directory upwards and then from this file upwards, is put in front, together with the PYTHONPATH entries that
its packages' hooks (`share/<package>/package.dsv`) ask for. The Python environment's own prefix, where ROS wheels live,
comes last.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from evergreen.launch.errors import LaunchError

BRINGUP = "evergreen_bringup"
"""The package whose presence tells that a workspace is there."""
_MARKER = Path("share/ament_index/resource_index/packages")
_FOLLOWED = ("PYTHONPATH", "AMENT_PREFIX_PATH")


@dataclass(frozen=True, slots=True)
class PackageIndex:
    """The packages below some install prefixes; the first prefix that has a package wins."""

    prefixes: tuple[Path, ...]

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> PackageIndex:
        """The packages that AMENT_PREFIX_PATH names."""
        return cls(tuple(Path(text) for text in environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if text))

    def find(self, package: str) -> Path | None:
        """Install prefix of a package, or None."""
        found = (prefix for prefix in self.prefixes if (prefix / _MARKER / package).is_file())
        return next(found, None)

    def prefix(self, package: str) -> Path:
        """Install prefix of a package; LaunchError where it is not installed."""
        found = self.find(package)
        if found is None:
            raise LaunchError(f"package {package!r} is not installed; {self._cure(package)}")
        return found

    def share(self, package: str) -> Path:
        """The package's share folder; LaunchError where it is not installed."""
        return self.prefix(package) / "share" / package

    def executable(self, package: str, name: str) -> Path:
        """`lib/<package>/<name>`; LaunchError where package or executable are not installed."""
        folder = self.prefix(package) / "lib" / package
        path = folder / name
        if path.is_file() and os.access(path, os.X_OK):
            return path
        present = sorted(item.name for item in folder.iterdir() if item.is_file()) if folder.is_dir() else []
        offer = f"it has {', '.join(present)}" if present else "it has none"
        raise LaunchError(
            f"package {package!r} has no executable {name!r} in {folder} ({offer}); if it is new, run `make build`"
        )

    def names(self) -> list[str]:
        """Every package, sorted."""
        folders = (prefix / _MARKER for prefix in self.prefixes)
        return sorted({item.name for folder in folders if folder.is_dir() for item in folder.iterdir()})

    def _cure(self, package: str) -> str:
        if close := difflib.get_close_matches(package, self.names(), n=1):
            return f"did you mean {close[0]!r}?"
        if not self.prefixes:
            return "AMENT_PREFIX_PATH is empty: build the workspace with `make build`, or source ROS's setup.bash"
        where = os.pathsep.join(map(str, self.prefixes[:3])) + ("…" if len(self.prefixes) > 3 else "")
        return f"looked in {where}; build the workspace with `make build`, or source the setup.bash that has it"


def find_launch_file(package: str, name: str, environment: Mapping[str, str] | None = None) -> Path:
    """The launch file of this name in a package's share folder; LaunchError where there is not exactly one."""
    share = PackageIndex.of(with_workspace(os.environ if environment is None else environment)).share(package)
    found = sorted(path for path in share.rglob("*") if path.name == name and path.is_file())
    if len(found) == 1:
        return found[0]
    if found:
        raise LaunchError(
            f"package {package!r} has {name!r} more than once: {', '.join(map(str, found))}; give the path"
        )
    present = sorted({path.name for path in share.rglob("*.launch.xml")})
    raise LaunchError(f"package {package!r} has no launch file {name!r}; it has {', '.join(present) or 'none'}")


def with_workspace(environment: Mapping[str, str], start: Path | None = None) -> dict[str, str]:
    """The environment in which this checkout's packages are found; see the rule above.

    Args:
        environment: as inherited; it is not changed.
        start: folder to look upwards from, the working directory by default.
    """
    result = dict(environment)
    if PackageIndex.of(result).find(BRINGUP) is None:
        install = find_install(Path.cwd() if start is None else start) or find_install(Path(__file__).resolve().parent)
        if install is not None:
            for prefix in _prefixes(install):
                for package in sorted(item.name for item in (prefix / _MARKER).iterdir()):
                    _source(prefix, prefix / "share" / package / "package.dsv", result, set())
                _prepend(result, "AMENT_PREFIX_PATH", prefix)
    own = Path(sys.prefix)
    if (own / _MARKER).is_dir() and own not in PackageIndex.of(result).prefixes:
        _append(result, "AMENT_PREFIX_PATH", own)
    return result


def find_install(start: Path) -> Path | None:
    """The nearest `install/` at or above `start` that holds `evergreen_bringup`."""
    for folder in (start, *start.parents):
        install = folder / "install"
        if any((prefix / _MARKER / BRINGUP).is_file() for prefix in (install, install / BRINGUP)):
            return install
    return None


def _prefixes(install: Path) -> Iterator[Path]:
    """The prefixes in a merged or an isolated install folder."""
    for folder in (install, *sorted(install.iterdir())):
        if (folder / _MARKER).is_dir():
            yield folder


def _source(prefix: Path, dsv: Path, environment: dict[str, str], seen: set[Path]) -> None:
    """Follow one of colcon's environment descriptions: lines of `operation;variable;value…`."""
    if dsv in seen or not dsv.is_file():
        return
    seen.add(dsv)
    for line in dsv.read_text(encoding="utf-8").splitlines():
        operation, _, rest = line.partition(";")
        if operation == "source":
            _source(prefix, (prefix / rest).with_suffix(".dsv"), environment, seen)
        elif operation.startswith("prepend-non-duplicate"):
            variable, _, value = rest.partition(";")
            path = prefix / value if value else prefix
            if variable in _FOLLOWED and (not operation.endswith("-if-exists") or path.exists()):
                _prepend(environment, variable, path)


def _prepend(environment: dict[str, str], variable: str, path: Path) -> None:
    entries = [entry for entry in environment.get(variable, "").split(os.pathsep) if entry]
    if str(path) not in entries:
        environment[variable] = os.pathsep.join([str(path), *entries])


def _append(environment: dict[str, str], variable: str, path: Path) -> None:
    entries = [entry for entry in environment.get(variable, "").split(os.pathsep) if entry]
    environment[variable] = os.pathsep.join([*entries, str(path)])
