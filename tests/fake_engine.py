"""A container engine that only notes what it is asked for, for tests of registries that cannot be had here.

`python fake_engine.py …` behaves as podman does; its folder is $FAKE_ENGINE. `login` keeps what came by standard input
in `login.json`; `push` puts an image into Amazon ECR (moto's), as the real one would; `pull` takes one of `remote`. For
Amazon's registry both demand a login in $REGISTRY_AUTH_FILE. `calls` has each call's words. `fail-push` and the like
let a call fail; `late-push` too, as somebody else has pushed the same tag a moment before.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import urllib.request
from pathlib import Path


def main(words: list[str]) -> int:
    folder = Path(os.environ["FAKE_ENGINE"])
    if words == ["--version"]:
        print("podman version 4.3.1")
        return 0
    with (folder / "calls").open("a") as calls:
        calls.write(json.dumps(words) + "\n")
    if (folder / f"fail-{words[0]}").exists():
        print("some chatter\nError: no space left on device", file=sys.stderr)
        return 125
    if (folder / f"hang-{words[0]}").exists():
        (folder / "hanging").touch()
        time.sleep(600)
    return _act(words, folder, folder / "images")


def _act(words: list[str], folder: Path, images: Path) -> int:
    if words[0] in ("pull", "push") and ".dkr.ecr." in words[-1] and not _signed_in(words[-1]):
        print("Error: initializing source: unauthorized: authentication required", file=sys.stderr)
        return 125
    if words[:2] == ["image", "inspect"]:
        return _inspect(words, images)
    if words[0] == "pull":
        if words[-1] not in (folder / "remote").read_text().split():
            print("Error: initializing source: connection refused", file=sys.stderr)
            return 125
        _add(images, words[-1])
    elif words[0] == "build":
        _add(images, words[words.index("--tag") + 1])
    elif words[0] == "tag":
        _add(images, words[2])
    elif words[:2] == ["image", "rm"]:
        images.write_text("\n".join(name for name in images.read_text().split() if name != words[-1]))
    elif words[0] == "login":
        (folder / "login.json").write_text(json.dumps({"words": words, "stdin": sys.stdin.read()}))
        Path(os.environ["REGISTRY_AUTH_FILE"]).write_text(words[-1])
    elif words[0] == "push":
        _push(words[-1], Path(words[words.index("--digestfile") + 1]))
        if (folder / "late-push").exists():
            print("Error: writing manifest: tag invalid: the image tag already exists", file=sys.stderr)
            return 125
    return 0


def _inspect(words: list[str], images: Path) -> int:
    """An image is known by its name, and by its digest too."""
    for name in images.read_text().split():
        digest = hashlib.sha256(name.encode()).hexdigest()
        by_digest = f"{name.rpartition(':')[0]}@sha256:{digest}"
        if words[-1] in (name, by_digest):
            known = {"Digest": f"sha256:{digest}", "RepoDigests": [by_digest]}
            print(digest if "--format" in words else json.dumps([known]))
            return 0
    print(f"Error: {words[-1]}: image not known", file=sys.stderr)
    return 125


def _signed_in(image: str) -> bool:
    file = Path(os.environ.get("REGISTRY_AUTH_FILE", "/nowhere"))
    return file.exists() and image.startswith(f"{file.read_text()}/")


def _add(images: Path, name: str) -> None:
    images.write_text(f"{images.read_text()}\n{name}")


def _push(image: str, digestfile: Path) -> None:
    """With the words of Amazon ECR's API, since this Python has no packages."""
    address, _, tag = image.rpartition(":")
    manifest = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json"})
    wanted = {"repositoryName": address.partition("/")[2], "imageManifest": manifest, "imageTag": tag}
    headers = {
        "X-Amz-Target": "AmazonEC2ContainerRegistry_V20150921.PutImage",
        "Content-Type": "application/x-amz-json-1.1",
        "Authorization": "AWS4-HMAC-SHA256 Credential=key/20261126/eu-central-1/ecr/aws4_request, Signature=none",
    }
    url = os.environ["AWS_ENDPOINT_URL"]
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(wanted).encode(), headers)) as answer:
        answer.read()
    digestfile.write_text("sha256:" + hashlib.sha256(manifest.encode()).hexdigest())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
