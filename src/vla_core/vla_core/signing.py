"""Ed25519 signatures of manifests: who may give this robot a model.

A signature covers the manifest's JSON without its key `signature`; through the hashes in it, it covers every byte of
every file. It is taken over the parsed document in one canonical form (sorted keys, no spaces), not over what this
release makes of it, so that a later release with more fields still accepts it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from vla_core import manifest as manifests
from vla_core.errors import ConfigError, ManifestError, SignatureError
from vla_core.manifest import Signature

PURPOSE = b"evergreen model manifest 1\n"
"""Put before what is signed, so that a signature made for something else never fits a model."""
KEY_BYTES = 32
KEYS_VARIABLE = "EVERGREEN_TRUSTED_KEYS"
REQUIRE_VARIABLE = "EVERGREEN_REQUIRE_SIGNATURE"
PUBLIC_SUFFIX = ".pub"


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose models this robot takes.

    Attributes:
        keys: key id to the 32 bytes of an Ed25519 public key: the allow-list.
        required: refuse models without a signature by one of these keys. Without it such models are taken, but one
            whose signature by a listed key does not fit is refused all the same: it was altered.
    """

    keys: Mapping[str, bytes] = field(default_factory=dict)
    required: bool = False

    def __post_init__(self) -> None:
        for key_id, key in self.keys.items():
            if len(key) != KEY_BYTES:
                raise ConfigError(f"trusted key {key_id!r} has {len(key)} bytes; an Ed25519 public key has {KEY_BYTES}")
        if self.required and not self.keys:
            raise ConfigError("signatures are required but no key is trusted: every model would be refused; name a key")

    def check(self, text: str, origin: str) -> None:
        """Judge the text of a manifest.

        Raises:
            SignatureError: unsigned, signed by nobody on the list, or altered since; the message starts with `origin`.
        """
        document = _parse(text, origin)
        signature = manifests.parse(text, origin).signature
        if signature is None:
            if self.required:
                raise SignatureError(f"{origin} is not signed; this robot takes models signed by {self._known()} only")
            return
        key = self.keys.get(signature.key_id)
        if key is None:
            if self.required:
                raise SignatureError(
                    f"{origin} is signed by key {signature.key_id!r}; this robot trusts {self._known()} only"
                )
            return
        try:
            value = base64.b64decode(signature.value, validate=True)
            Ed25519PublicKey.from_public_bytes(key).verify(value, _message(document, origin))
        except (InvalidSignature, binascii.Error, ValueError) as error:
            raise SignatureError(
                f"{origin} does not fit its signature by key {signature.key_id!r}: it was altered after it was signed"
            ) from error

    def _known(self) -> str:
        return ", ".join(sorted(self.keys)) or "nobody"


def sign(text: str, key: Ed25519PrivateKey, origin: str = manifests.FILE_NAME) -> Signature:
    """The signature of a manifest's text; one that it already has does not count."""
    value = key.sign(_message(_parse(text, origin), origin))
    return Signature(key_id=key_id_of(public_bytes(key)), value=base64.b64encode(value).decode())


def sign_folder(folder: Path, key: Ed25519PrivateKey) -> Signature:
    """Verify a model's files, then put a signature into its manifest.

    Raises:
        ManifestError: no model, or its files are not what the manifest says.
    """
    manifest = manifests.load(folder)
    manifests.verify(folder, manifest)
    path = folder / manifests.FILE_NAME
    text = manifests.read_text(path)
    signature = sign(text, key, str(path))
    document = _parse(text, str(path)) | {"signature": {"key_id": signature.key_id, "value": signature.value}}
    manifests.write_text(folder, json.dumps(document, indent=2) + "\n")
    return signature


def body_digest(text: str, origin: str = manifests.FILE_NAME) -> str:
    """SHA-256 of what a signature covers: two manifests with the same one describe the same model."""
    return hashlib.sha256(_message(_parse(text, origin), origin)).hexdigest()


def _parse(text: str, origin: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{origin}: not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ManifestError(f"{origin}: must be a JSON object")
    return document


def _message(document: Mapping[str, Any], origin: str) -> bytes:
    body = {name: value for name, value in document.items() if name != "signature"}
    try:
        return PURPOSE + json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    except ValueError as error:
        raise ManifestError(f"{origin}: {error}; NaN and infinity are no JSON") from error


# --- keys ------------------------------------------------------------------------------------------------------------


def key_id_of(public_key: bytes) -> str:
    """A key's id: the first 16 hex digits of the SHA-256 of its 32 bytes, so that nobody can borrow a name."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    """The 32 bytes of the public key that belongs to `key`."""
    return key.public_key().public_bytes_raw()


def generate(private_file: Path) -> Path:
    """Make a key pair: `private_file` (mode 0600) and beside it the same name with `.pub`, which is returned.

    Raises:
        ConfigError: one of the files exists: a lost key cannot be made again, so none is overwritten.
    """
    key = Ed25519PrivateKey.generate()
    public_file = private_file.with_name(private_file.name + PUBLIC_SUFFIX)
    for path in (private_file, public_file):  # both, before one is written without the other
        if os.path.lexists(path):
            raise ConfigError(f"{path} exists; keys are never overwritten, name another file")
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for path, content, mode in ((private_file, private, 0o600), (public_file, public, 0o644)):
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
                stream.write(content)
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    return public_file


def load_private(path: Path) -> Ed25519PrivateKey:
    """Read a private key in PEM.

    Raises:
        ConfigError: no file, another kind of key, or one behind a password.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no unencrypted private key in PEM"
        raise ConfigError(f"{path}: {reason}; `evergreen model keygen FILE` makes one") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path}: is no Ed25519 key; `evergreen model keygen FILE` makes one")
    return key


def load_public(path: Path) -> bytes:
    """Read a public key in PEM: its 32 bytes.

    Raises:
        ConfigError: no file, or another kind of key.
    """
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no public key in PEM"
        raise ConfigError(f"{path}: {reason}; a trusted key is the {PUBLIC_SUFFIX} file of a pair") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{path}: is no Ed25519 key; a trusted key is the {PUBLIC_SUFFIX} file of a pair")
    return key.public_bytes_raw()


def load_trust(paths: Iterable[Path], required: bool) -> Trust:
    """The allow-list made of public key files; a folder stands for all `*.pub` in it.

    Raises:
        ConfigError: a file or folder is absent or no key, or signatures are required and there is no key.
    """
    files: list[Path] = []
    for path in paths:
        files += sorted(path.glob(f"*{PUBLIC_SUFFIX}")) if path.is_dir() else [path]
    keys = [load_public(path) for path in files]
    return Trust({key_id_of(key): key for key in keys}, required)


def trust_of(environment: Mapping[str, str]) -> Trust:
    """What `EVERGREEN_TRUSTED_KEYS` (files and folders, joined by `:`) and `EVERGREEN_REQUIRE_SIGNATURE` (1) ask for.

    Raises:
        ConfigError: as `load_trust`, or the second is neither 0 nor 1.
    """
    return load_trust(key_paths(environment.get(KEYS_VARIABLE, "")), is_required(environment))


def key_paths(text: str) -> list[Path]:
    """Files and folders of keys, joined by `:`."""
    return [Path(word).expanduser() for word in text.split(os.pathsep) if word]


def is_required(environment: Mapping[str, str]) -> bool:
    """Whether `EVERGREEN_REQUIRE_SIGNATURE` asks for signatures, whoever names the keys.

    Raises:
        ConfigError: it is neither 0 nor 1.
    """
    required = environment.get(REQUIRE_VARIABLE, "") or "0"
    if required not in ("0", "1"):
        raise ConfigError(f"{REQUIRE_VARIABLE} is {required!r}; it may be 0 or 1")
    return required == "1"
