"""Signatures: whose models a robot takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from store_support import write_model

from vla_core import manifest as manifests
from vla_core import signing
from vla_core.errors import ConfigError, ManifestError, SignatureError
from vla_core.signing import Trust
from vla_core.store import MODEL_PART, Store


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    signing.generate(tmp_path / "ours.pem")
    return tmp_path / "ours.pem"


@pytest.fixture
def signed(tmp_path: Path, key_file: Path) -> Path:
    folder = write_model(tmp_path / "source")
    signing.sign_folder(folder, signing.load_private(key_file))
    return folder


@pytest.fixture
def strict(key_file: Path) -> Trust:
    return signing.load_trust([key_file.with_name("ours.pem.pub")], required=True)


def text_of(folder: Path) -> str:
    return manifests.read_text(folder / manifests.FILE_NAME)


def change(folder: Path, **fields: object) -> None:
    document = json.loads(text_of(folder)) | fields
    manifests.write_text(folder, json.dumps(document))


def test_a_signed_model_is_taken_and_its_manifest_still_loads(signed: Path, strict: Trust, tmp_path: Path):
    strict.check(text_of(signed), "here")
    signature = manifests.load(signed).signature
    assert signature is not None
    assert [signature.key_id] == list(strict.keys)
    assert Store(tmp_path / "store", strict).adopt(signed) == "tiny@1"
    assert Store(tmp_path / "store", strict).verify("tiny@1").signature == signature


def test_layout_of_the_json_does_not_matter(signed: Path, strict: Trust):
    document = json.loads(text_of(signed))
    strict.check(json.dumps(dict(reversed(document.items())), indent=7), "here")


def test_a_key_of_a_later_release_would_be_covered(key_file: Path, strict: Trust):
    """The signature is over the document, not over the fields that this release knows."""
    document = {"format": 1, "surprise": [1.5, "ü"]}
    key = signing.load_private(key_file)
    one = signing.sign(json.dumps(document), key)
    assert one == signing.sign(json.dumps(document | {"signature": {"key_id": "x", "value": "y"}}, indent=1), key)
    assert one != signing.sign(json.dumps(document | {"surprise": [1.5, "u"]}), key)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "drop everything"},
        {"rate_hz": 11.0},
        {"version": "2"},
        {"provenance": {"success": "always"}},
        {"files": {}},
    ],
)
def test_an_altered_manifest_is_refused_even_where_signatures_are_not_required(
    signed: Path, strict: Trust, fields: dict
):
    change(signed, **fields)
    for trust in (strict, Trust(strict.keys)):
        with pytest.raises(SignatureError, match="altered after it was signed"):
            trust.check(text_of(signed), "here")


def test_an_altered_file_is_refused(signed: Path, strict: Trust, tmp_path: Path):
    content = bytearray((signed / "policy.onnx").read_bytes())
    content[-1] ^= 1
    (signed / "policy.onnx").write_bytes(content)
    store = Store(tmp_path / "store", strict)
    with pytest.raises(ManifestError, match="does not match its SHA-256"):
        store.adopt(signed)
    change(signed, files={**json.loads(text_of(signed))["files"], "policy.onnx": {"size": 3001, "sha256": "0" * 64}})
    with pytest.raises(SignatureError):
        store.adopt(signed)
    assert store.labels() == ()


def test_an_unsigned_model_is_refused_where_a_signature_is_required(tmp_path: Path, strict: Trust):
    source = write_model(tmp_path / "source")
    with pytest.raises(SignatureError, match="is not signed; this robot takes models signed by"):
        Store(tmp_path / "store", strict).adopt(source)
    assert Store(tmp_path / "store", Trust(strict.keys)).adopt(source) == "tiny@1"
    with pytest.raises(SignatureError):
        Store(tmp_path / "store", strict).verify("tiny@1")


def test_a_stripped_signature_is_refused_where_one_is_required(signed: Path, strict: Trust):
    document = json.loads(text_of(signed))
    del document["signature"]
    with pytest.raises(SignatureError, match="is not signed"):
        strict.check(json.dumps(document), "here")


def test_somebody_elses_signature_is_refused(tmp_path: Path, strict: Trust):
    signing.generate(tmp_path / "theirs.pem")
    source = write_model(tmp_path / "source")
    theirs = signing.sign_folder(source, signing.load_private(tmp_path / "theirs.pem"))
    with pytest.raises(SignatureError, match=rf"signed by key '{theirs.key_id}'; this robot trusts"):
        strict.check(text_of(source), "here")
    change(source, signature={"key_id": next(iter(strict.keys)), "value": theirs.value})
    with pytest.raises(SignatureError, match="altered"):
        strict.check(text_of(source), "here")


@pytest.mark.parametrize("value", ["AAAA", "no base64!", "A" * 88])
def test_a_signature_that_is_none_is_refused(signed: Path, strict: Trust, value: str):
    change(signed, signature={"key_id": next(iter(strict.keys)), "value": value})
    with pytest.raises(SignatureError):
        strict.check(text_of(signed), "here")


@pytest.mark.parametrize(
    "signature", [{}, {"key_id": "a"}, {"key_id": "", "value": "x"}, {"key_id": "../x", "value": "x"}, 3]
)
def test_a_malformed_signature_is_a_malformed_manifest(signed: Path, signature: object):
    change(signed, signature=signature)
    with pytest.raises(ManifestError):
        manifests.load(signed)


def test_a_signature_for_another_purpose_does_not_fit(signed: Path, strict: Trust, key_file: Path):
    document = json.loads(text_of(signed))
    del document["signature"]
    plain = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    value = __import__("base64").b64encode(signing.load_private(key_file).sign(plain)).decode()
    change(signed, signature={"key_id": next(iter(strict.keys)), "value": value})
    with pytest.raises(SignatureError):
        strict.check(text_of(signed), "here")


def test_a_stored_model_takes_a_signature_over_but_never_loses_one(tmp_path: Path, key_file: Path, strict: Trust):
    source = write_model(tmp_path / "source")
    store = Store(tmp_path / "store")
    store.adopt(source)
    signing.sign_folder(source, signing.load_private(key_file))
    store.adopt(source)
    assert Store(tmp_path / "store", strict).verify("tiny@1").signature
    unsigned = write_model(tmp_path / "unsigned")
    store.adopt(unsigned)
    with store.fetching("again") as place:
        (unsigned).rename(place / MODEL_PART)
        store.commit(place / MODEL_PART)
    assert store.manifest("tiny@1").signature


def test_a_signature_of_a_stranger_replaces_none_that_is_trusted(tmp_path: Path, key_file: Path, strict: Trust):
    """Fetching a copy signed by anybody, by a command without keys, left the robot's own model untrusted."""
    source = write_model(tmp_path / "source")
    signing.sign_folder(source, signing.load_private(key_file))
    Store(tmp_path / "store", strict).adopt(source)
    signing.generate(tmp_path / "stranger.pem")
    signing.sign_folder(source, signing.load_private(tmp_path / "stranger.pem"))
    assert Store(tmp_path / "store").adopt(source) == "tiny@1"
    assert Store(tmp_path / "store", strict).verify("tiny@1")


def test_signing_a_damaged_folder_is_refused(tmp_path: Path, key_file: Path):
    source = write_model(tmp_path / "source")
    (source / "README.md").write_text("changed")
    with pytest.raises(ManifestError):
        signing.sign_folder(source, signing.load_private(key_file))


# --- keys and trust --------------------------------------------------------------------------------------------------


def test_private_keys_are_for_their_owner_and_never_overwritten(key_file: Path):
    assert key_file.stat().st_mode & 0o777 == 0o600
    before = key_file.read_bytes()
    with pytest.raises(ConfigError, match="never overwritten"):
        signing.generate(key_file)
    assert key_file.read_bytes() == before
    (key_file.parent / "half.pem.pub").write_text("somebody's")
    with pytest.raises(ConfigError, match=r"half\.pem\.pub exists"):
        signing.generate(key_file.parent / "half.pem")
    assert not (key_file.parent / "half.pem").exists()  # a private key without its public one was left
    with pytest.raises(ConfigError, match="cannot be written: No such file"):  # it was called overwriting
        signing.generate(key_file.parent / "absent" / "key.pem")


def test_what_is_no_key_is_told(tmp_path: Path, key_file: Path):
    public = key_file.with_name("ours.pem.pub")
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key  # noqa: PLC0415

    other = generate_private_key(SECP256R1())
    (tmp_path / "other.pem").write_bytes(
        other.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (tmp_path / "other.pub").write_bytes(
        other.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    (tmp_path / "locked.pem").write_bytes(
        signing.load_private(key_file).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    for path in (tmp_path / "absent.pem", public, tmp_path / "other.pem", tmp_path / "locked.pem"):
        with pytest.raises(ConfigError, match="evergreen model keygen"):
            signing.load_private(path)
    for path in (tmp_path / "absent.pub", key_file, tmp_path / "other.pub"):
        with pytest.raises(ConfigError, match="a trusted key is the"):
            signing.load_public(path)


def test_trust_from_files_folders_and_the_environment(tmp_path: Path, key_file: Path):
    signing.generate(tmp_path / "more.pem")
    public = key_file.with_name("ours.pem.pub")
    assert len(signing.load_trust([public], required=False).keys) == 1
    assert len(signing.load_trust([tmp_path], required=True).keys) == 2
    assert signing.trust_of({}) == Trust()
    both = {"EVERGREEN_TRUSTED_KEYS": f"{public}:{tmp_path / 'more.pem.pub'}", "EVERGREEN_REQUIRE_SIGNATURE": "1"}
    trust = signing.trust_of(both)
    assert len(trust.keys) == 2
    assert trust.required
    with pytest.raises(ConfigError, match="EVERGREEN_REQUIRE_SIGNATURE"):
        signing.trust_of({"EVERGREEN_REQUIRE_SIGNATURE": "yes"})
    with pytest.raises(ConfigError, match="no key is trusted"):
        signing.trust_of({"EVERGREEN_REQUIRE_SIGNATURE": "1"})
    with pytest.raises(ConfigError, match="has 3 bytes"):
        Trust({"x": b"abc"})
