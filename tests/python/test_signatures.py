"""`backstop models verify` and `serve --require-signature`, with signatures that the package `model-signing` makes."""

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from backstop_process import BINARY, REPOSITORY, START_TIMEOUT_S, BackstopProcess
from requests_made import chat

model_signing = pytest.importorskip("model_signing", reason="tests/python/requirements.txt is not installed")

from cryptography.hazmat.primitives import serialization  # noqa: E402

from signers import certified_signer, key_signer  # noqa: E402

DEMO = REPOSITORY / "models/demo"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the demo model that may be signed and damaged."""
    return Path(shutil.copytree(DEMO, tmp_path / "model"))


def sign(model: Path, signer: model_signing.signing.Config, *left_out: str, signature: Path | None = None) -> None:
    """Signs all files but those that are left out."""
    paths = ["model.sig", *left_out]
    hashing = model_signing.hashing.Config().set_ignored_paths(paths=paths)
    signer.set_hashing_config(hashing).sign(model, signature or model / "model.sig")


def verify(model: Path, *arguments: str | Path) -> subprocess.CompletedProcess:
    command = [BINARY, "models", "verify", model, *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=START_TIMEOUT_S)


def key_fingerprint(key: Path) -> str:
    """What `openssl pkey -pubin -outform DER | sha256sum` prints."""
    public = serialization.load_pem_public_key(key.read_bytes())
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(public.public_bytes(serialization.Encoding.DER, form)).hexdigest()


def flip_a_bit(model: Path) -> None:
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[len(weights) // 2] ^= 1
    (model / "model.safetensors").write_bytes(weights)


def swap_the_template(model: Path) -> None:
    (model / "chat_template.jinja").write_text("{% for message in messages %}{{ message.content }}{% endfor %}")


def remove_a_file(model: Path) -> None:
    (model / "generation_config.json").unlink()


def add_weights(model: Path) -> None:
    shutil.copy(model / "model.safetensors", model / "more.safetensors")


def remove_the_signature(model: Path) -> None:
    (model / "model.sig").unlink()


# What happens to a signed model, and what the refusal names.
DAMAGES = {
    flip_a_bit: "model.safetensors",
    swap_the_template: "chat_template.jinja",
    remove_a_file: "generation_config.json",
    add_weights: "more.safetensors",
    remove_the_signature: "there is no signature",
}


def test_a_signed_model_is_verified_and_says_whose_it_is(model: Path, tmp_path: Path) -> None:
    signer, key = key_signer(tmp_path, "signer")
    sign(model, signer)
    done = verify(model, "--key", key)
    assert done.returncode == 0, done.stderr
    assert key_fingerprint(key) in done.stdout


def test_a_model_that_the_holder_of_a_certificate_signed_is_verified(model: Path, tmp_path: Path) -> None:
    signer, root = certified_signer(tmp_path)
    sign(model, signer)
    done = verify(model, "--certificate", root)
    assert done.returncode == 0, done.stderr
    assert "CN=Signer of models" in done.stdout
    flip_a_bit(model)
    done = verify(model, "--certificate", root)
    assert done.returncode == 1
    assert "model.safetensors" in done.stderr


def test_a_signature_may_lie_elsewhere(model: Path, tmp_path: Path) -> None:
    signer, key = key_signer(tmp_path, "signer")
    signature = tmp_path / "elsewhere.sig"
    sign(model, signer, signature=signature)
    assert verify(model, "--key", key).returncode == 1
    assert verify(model, "--key", key, "--signature", signature).returncode == 0


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_what_happened_after_signing_is_named(model: Path, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    signer, key = key_signer(tmp_path, "signer")
    sign(model, signer)
    damage(model)
    done = verify(model, "--key", key)
    assert done.returncode == 1
    assert DAMAGES[damage] in done.stderr
    assert done.stdout == ""


def test_another_key_is_not_the_signers(model: Path, tmp_path: Path) -> None:
    signer, key = key_signer(tmp_path, "signer")
    sign(model, signer)
    _, foreign = key_signer(tmp_path, "foreign")
    done = verify(model, "--key", foreign)
    assert done.returncode == 1
    assert "not by this key" in done.stderr


@pytest.mark.parametrize("left_out", ["config.json", "chat_template.jinja", "model.safetensors"])
def test_a_file_that_was_left_out_is_not_signed(model: Path, tmp_path: Path, left_out: str) -> None:
    signer, key = key_signer(tmp_path, "signer")
    sign(model, signer, left_out)
    done = verify(model, "--key", key)
    assert done.returncode == 1
    assert f"{left_out} has no digest" in done.stderr


def test_a_signed_model_is_served(model: Path, tmp_path: Path, start: Callable[..., BackstopProcess]) -> None:
    signer, key = key_signer(tmp_path, "signer")
    sign(model, signer)
    server = start("--require-signature", str(key), "--served-model-name", "demo", model=str(model)).wait_until_ready()
    answer = httpx.post(f"{server.base_url}/chat/completions", json=chat(), timeout=30)
    assert answer.status_code == 200
    assert key_fingerprint(key) in server.log()


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_what_was_changed_after_signing_is_not_served(
    model: Path, tmp_path: Path, start: Callable[..., BackstopProcess], damage: Callable[[Path], None]
) -> None:
    signer, key = key_signer(tmp_path, "signer")
    sign(model, signer)
    damage(model)
    server = start("--require-signature", str(key), model=str(model))
    assert server.wait() == 1
    assert DAMAGES[damage] in server.log()


def test_what_somebody_else_signed_is_not_served(
    model: Path, tmp_path: Path, start: Callable[..., BackstopProcess]
) -> None:
    signer, _ = key_signer(tmp_path, "signer")
    sign(model, signer)
    _, foreign = key_signer(tmp_path, "foreign")
    server = start("--require-signature", str(foreign), model=str(model))
    assert server.wait() == 1
    assert "not by this key" in server.log()
