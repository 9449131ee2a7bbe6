"""`backstop models` and `backstop import`: what is here, whether it is what it was, and how it comes here without network."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from backstop_process import BINARY, REPOSITORY, BackstopProcess

DEMO = REPOSITORY / "models/demo"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def backstop(store: Path, *arguments: str | Path, succeeds: bool = True) -> str:
    environment = {**os.environ, "BACKSTOP_MODELS_DIR": str(store)}
    command = [BINARY, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=REPOSITORY, timeout=60)
    assert (done.returncode == 0) == succeeds, done.stderr
    return done.stdout if succeeds else done.stderr


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def cached(root: Path) -> Path:
    """The demo model as a cache of the Hugging Face hub has it: links to blobs, named by their digests."""
    repository = root / "models--backstop--demo-cached"
    snapshot = repository / "snapshots" / COMMIT
    (repository / "blobs").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(COMMIT)
    snapshot.mkdir(parents=True)
    for file in DEMO.iterdir():
        # Git's digest for small files, SHA-256 for large ones.
        blob = digest(file) if file.suffix == ".safetensors" else hashlib.sha1(file.read_bytes()).hexdigest()
        shutil.copy(file, repository / "blobs" / blob)
        (snapshot / file.name).symlink_to(f"../../blobs/{blob}")
    return repository


def test_the_list_says_what_is_here_and_what_runs(store: Path) -> None:
    listed = {model["name"]: model for model in json.loads(backstop(store, "models", "list", "--json"))}
    demo, large = listed["demo"], listed["kimi-k2-instruct"]
    assert demo["runs"] and demo["context"] == 4096 and demo["weight_bytes"] > 6_000_000
    assert large["runs"] is False and large["weight_bytes"] is None and "needs" in large["note"]
    here = backstop(store, "models", "list", "--here")
    assert "demo" in here and "kimi" not in here


def test_a_model_is_shown_with_what_is_known_of_it(store: Path) -> None:
    shown = backstop(store, "models", "show", "north-mini-code-fp8")
    for part in ["CohereLabs/North-Mini-Code-1.0-fp8", "736dde3c", "not on this machine", "claim", "source: "]:
        assert part in shown
    report = json.loads(backstop(store, "models", "show", "demo", "--json"))
    assert report["here"] and report["manifest"]["licence"] == "Apache-2.0"
    assert "no model" in backstop(store, "models", "show", "nothing", succeeds=False)


def test_a_model_is_imported_from_a_cache_and_served_by_its_name(store: Path, tmp_path: Path) -> None:
    repository = cached(tmp_path / "cache")
    assert "imported demo-cached" in backstop(store, "import", repository)
    assert not list(store.glob(".import*"))
    report = json.loads(backstop(store, "models", "show", "demo-cached", "--json"))
    manifest = report["manifest"]
    assert (manifest["repository"], manifest["revision"]) == ("backstop/demo-cached", COMMIT)
    weights = manifest["files"]["model.safetensors"]
    assert weights == {"sha256": digest(DEMO / "model.safetensors"), "bytes": (DEMO / "model.safetensors").stat().st_size}
    assert not any(path.is_symlink() for path in (store / "demo-cached").iterdir())
    assert "all" in backstop(store, "models", "verify", "demo-cached")

    server = BackstopProcess("--verify", model="demo-cached", models_dir=store)
    try:
        server.wait_until_ready()
        [card] = httpx.get(f"{server.base_url}/models").json()["data"]
        assert card["id"] == "demo-cached"
        told = card["provenance"]
        assert (told["repository"], told["revision"]) == ("backstop/demo-cached", COMMIT)
        assert told["tokenizer"] == digest(DEMO / "tokenizer.json")
        assert told["chat_template"] == digest(DEMO / "chat_template.jinja")
        assert httpx.get(f"{server.root}/health").headers["x-backstop-model"] == f"demo-cached@{told['weights']}"
        server.stop()
    finally:
        server.kill()


def test_a_store_is_carried_and_imported(store: Path, tmp_path: Path) -> None:
    backstop(store, "import", cached(tmp_path / "cache"), "--name", "first")
    carried = tmp_path / "carried"
    shutil.copytree(store, carried)
    other = tmp_path / "other"
    assert "imported first" in backstop(other, "import", carried)
    assert (other / "first.toml").read_text() == (store / "first.toml").read_text()
    assert "there already" in backstop(other, "import", carried, succeeds=False)

    weights = carried / "first/model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    error = backstop(tmp_path / "third", "import", carried, succeeds=False)
    assert "model.safetensors is not what the manifest records" in error
    assert not list((tmp_path / "third").iterdir())


@pytest.mark.parametrize("damage", ["flipped", "short", "missing", "added"])
def test_what_differs_is_named(store: Path, tmp_path: Path, damage: str) -> None:
    backstop(store, "import", cached(tmp_path / "cache"), "--name", "mine")
    files = store / "mine"
    if damage == "added":
        (files / "tokenizer_extra.json").write_text("{}")
    elif damage == "missing":
        (files / "chat_template.jinja").unlink()
    else:
        data = bytearray((files / "model.safetensors").read_bytes())
        data[len(data) // 2] ^= 1
        (files / "model.safetensors").write_bytes(data[: -1 if damage == "short" else None])
    name = {"added": "tokenizer_extra.json", "missing": "chat_template.jinja"}.get(damage, "model.safetensors")
    assert name in backstop(store, "models", "verify", "mine", succeeds=False)
    # Sizes are compared always, digests on request.
    flags = ["--verify"] if damage == "flipped" else []
    error = backstop(store, "generate", "mine", "--prompt", "def", "--max-tokens", "1", *flags, succeeds=False)
    assert name in error


def test_a_model_is_removed_and_nothing_else(store: Path, tmp_path: Path) -> None:
    backstop(store, "import", cached(tmp_path / "cache"), "--name", "mine")
    assert "--yes" in backstop(store, "models", "remove", "mine", succeeds=False)
    assert "no model" in backstop(store, "models", "remove", "demo", "--yes", succeeds=False)
    assert "no model" in backstop(store, "models", "remove", "../mine", "--yes", succeeds=False)
    backstop(store, "models", "remove", "mine", "--yes")
    assert not list(store.iterdir())


def test_what_cannot_be_imported_says_why(store: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    repository = cached(cache)
    assert str(repository.name) in backstop(store, "import", cache, succeeds=False)
    assert "there is no model" in backstop(store, "import", tmp_path / "nowhere", succeeds=False)
    assert "may have letters" in backstop(store, "import", repository, "--name", "a/b", succeeds=False)
    blob = repository / "blobs" / digest(DEMO / "model.safetensors")
    blob.write_bytes(b"\0" * blob.stat().st_size)
    error = backstop(store, "import", repository, succeeds=False)
    assert "is not what the cache calls it" in error or "model.safetensors" in error


def test_pull_is_another_program(store: Path) -> None:
    assert "backstop-pull" in backstop(store, "pull", "--help", succeeds=(BINARY.parent / "backstop-pull").exists())
