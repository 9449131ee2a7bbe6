"""`backstop-pull`, and huggingface_hub against the same stand-in for a hub."""

import hashlib
import json
import os
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from backstop_process import BINARY, REPOSITORY, BackstopProcess
from conftest import sdk
from requests_made import chat
from stand_in_hub import COMMIT, StandInHub

PULL = Path(os.environ.get("BACKSTOP_PULL_BINARY", BINARY.with_name("backstop-pull"))).resolve()
TOKEN = "hf_ThisIsMySecret"
MODEL = "someone/tiny"
WANTED = ["LICENSE", "config.json", "model.safetensors", "tokenizer.json"]

pytestmark = pytest.mark.skipif(not PULL.is_file(), reason=f"{PULL} does not exist: cargo build -p backstop-pull")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """What somebody published: the bundled model, with weights that need several parts, and what serving does not need."""
    directory = tmp_path / "published"
    (directory / "onnx").mkdir(parents=True)
    demo = REPOSITORY / "models/demo"
    for name in ("config.json", "tokenizer.json"):
        (directory / name).write_bytes((demo / name).read_bytes())
    (directory / "LICENSE").write_text("do as you like\n")
    (directory / "README.md").write_text("# tiny\n")
    (directory / "onnx/model.onnx").write_bytes(b"x" * 20_000)
    with (directory / "model.safetensors").open("wb") as file:
        for number in range(40):
            file.write(hashlib.shake_128(number.to_bytes(4)).digest(1 << 20))
    return directory


@pytest.fixture
def hub(repository: Path) -> Iterator[StandInHub]:
    with StandInHub(repository, MODEL) as stand_in:
        yield stand_in


def pull(hub: StandInHub, store: Path, *arguments: str, token: str = "") -> subprocess.CompletedProcess[str]:
    environment = {"HOME": str(store.parent), "HF_ENDPOINT": hub.url, "HF_TOKEN": token, "BACKSTOP_MODELS_DIR": str(store)}
    return subprocess.run([PULL, MODEL, *arguments], env=environment, capture_output=True, text=True, timeout=120)


def contents(directory: Path) -> dict[str, str]:
    files = [path for path in directory.rglob("*") if path.is_file() and ".cache" not in path.parts]
    digest = lambda path: hashlib.sha256(path.read_bytes()).hexdigest()  # noqa: E731
    return {path.relative_to(directory).as_posix(): digest(path) for path in files}


def test_what_is_pulled_is_what_huggingface_hub_fetches(hub: StandInHub, tmp_path: Path) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    theirs = tmp_path / "theirs"
    huggingface_hub.snapshot_download(MODEL, endpoint=hub.url, local_dir=theirs, token=False, allow_patterns=WANTED)
    done = pull(hub, tmp_path / "store")
    assert done.returncode == 0, done.stderr
    assert sorted(contents(theirs)) == WANTED
    assert contents(tmp_path / "store/tiny") == contents(theirs)


def test_the_manifest_holds_what_was_fetched(hub: StandInHub, tmp_path: Path) -> None:
    store = tmp_path / "store"
    done = pull(hub, store)
    assert done.returncode == 0, done.stderr
    manifest = tomllib.loads((store / "tiny.toml").read_text())
    assert (manifest["repository"], manifest["revision"], manifest["licence"]) == (MODEL, COMMIT, "apache-2.0")
    assert {name: entry["sha256"] for name, entry in manifest["files"].items()} == contents(store / "tiny")
    config = json.loads((store / "tiny/config.json").read_text())
    assert manifest["architecture"] == config["architectures"][0]
    assert sorted(path.name for path in store.iterdir()) == ["tiny", "tiny.toml"]
    asked = len(hub.requests)
    again = pull(hub, store)
    assert again.returncode == 0
    assert "already there" in again.stderr
    assert len(hub.requests) == asked + 1


def test_a_gated_repository_needs_a_token_which_goes_nowhere_else(repository: Path, tmp_path: Path) -> None:
    with StandInHub(repository, MODEL, token=TOKEN) as hub:
        refused = pull(hub, tmp_path / "store")
        assert refused.returncode == 1
        assert "accept its licence" in refused.stderr and "HF_TOKEN" in refused.stderr
        done = pull(hub, tmp_path / "store", token=TOKEN)
        assert done.returncode == 0, done.stderr
        assert TOKEN not in refused.stderr + done.stderr + done.stdout
        token_file = tmp_path / ".cache/huggingface/token"
        token_file.parent.mkdir(parents=True)
        token_file.write_text(f"{TOKEN}\n")
        assert pull(hub, tmp_path / "another_store").returncode == 0
        large = [headers for _, path, headers in hub.requests if path.count("/") == 1]
        assert large
        assert not any("authorization" in headers for headers in large)


def test_a_dry_run_lists_and_fetches_nothing(hub: StandInHub, tmp_path: Path) -> None:
    done = pull(hub, tmp_path / "store", "--dry-run")
    assert done.returncode == 0
    assert [line.split()[1] for line in done.stdout.splitlines()] == WANTED
    assert not (tmp_path / "store").exists()


def backstop(store: Path, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"HOME": str(store.parent), "BACKSTOP_MODELS_DIR": str(store), **variables}
    command = [BINARY, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, cwd=REPOSITORY)


def said_by(server: BackstopProcess) -> str:
    try:
        with sdk(server.wait_until_ready()) as client:
            answer = client.chat.completions.create(**chat(model=client.models.list().data[0].id))
        server.stop()
    finally:
        server.kill()
    return answer.choices[0].message.content


def test_a_newcomer_pulls_a_model_serves_it_and_asks_it(server: BackstopProcess, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with StandInHub(REPOSITORY / "models/demo", "someone/Small-Model") as hub:
        done = backstop(store, "pull", "someone/Small-Model", HF_ENDPOINT=hub.url)
        assert done.returncode == 0, done.stderr
    verified = backstop(store, "models", "verify", "Small-Model")
    assert verified.returncode == 0, verified.stderr
    with sdk(server) as client:
        expected = client.chat.completions.create(**chat()).choices[0].message.content
    assert said_by(BackstopProcess("--verify", model="Small-Model", models_dir=store)) == expected


def test_the_cache_of_huggingface_hub_is_imported_and_served_where_it_is(tmp_path: Path) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    store, cache = tmp_path / "store", tmp_path / "cache"
    with StandInHub(REPOSITORY / "models/demo", "someone/Small-Model") as hub:
        snapshot = huggingface_hub.snapshot_download(
            "someone/Small-Model", endpoint=hub.url, cache_dir=cache, token=False
        )
    done = backstop(store, "import", cache / "models--someone--Small-Model")
    assert done.returncode == 0, done.stderr
    manifest = tomllib.loads((store / "Small-Model.toml").read_text())
    assert (manifest["repository"], manifest["revision"]) == ("someone/Small-Model", COMMIT)
    imported = said_by(BackstopProcess("--verify", model="Small-Model", models_dir=store))
    # A snapshot is links to blobs, which a confined server must be able to follow.
    assert said_by(BackstopProcess(model=snapshot)) == imported
