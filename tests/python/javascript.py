"""Clients that come from npm, in the versions that `tests/javascript/package.json` pins."""

import os
import shutil
from pathlib import Path

import pytest

DIRECTORY = Path(__file__).resolve().parents[1] / "javascript"


def require_program(name: str, variable: str) -> str:
    """The path of an installed program; the environment's `variable` names another. Skips the calling module without."""
    installed = DIRECTORY / "node_modules" / ".bin" / name
    found = shutil.which(os.environ.get(variable, installed))
    if found is None:
        pytest.skip(f"{name} is not installed (npm install --prefix tests/javascript)", allow_module_level=True)
    return found


def require_package(name: str) -> str:
    """The path of Node.js, for scripts in `tests/javascript` that import this package. Skips the calling module without."""
    node = shutil.which("node")
    if node is None or not (DIRECTORY / "node_modules" / name).is_dir():
        pytest.skip(f"{name} is not installed (npm install --prefix tests/javascript)", allow_module_level=True)
    return node
