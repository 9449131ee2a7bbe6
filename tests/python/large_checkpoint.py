"""A checkpoint that takes a noticeable time to load: the demo model with a very wide first layer of zeroes."""

import json
import shutil
from pathlib import Path

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo"
WIDTH = 512_000  # three BF16 matrices of 197 MB each


def write_large_checkpoint(directory: Path) -> Path:
    """Fills `directory`. The zeroes are a hole in the file: they cost no disk, only time to read."""
    for path in DEMO.iterdir():
        if path.suffix in (".json", ".jinja"):
            shutil.copy(path, directory)
    config = json.loads((DEMO / "config.json").read_text())
    hidden = config["hidden_size"]
    config["prefix_dense_intermediate_size"] = WIDTH
    (directory / "config.json").write_text(json.dumps(config))

    original = (DEMO / "model.safetensors").read_bytes()
    header_end = 8 + int.from_bytes(original[:8], "little")
    header = json.loads(original[8:header_end])
    for name, shape in (("gate", [WIDTH, hidden]), ("up", [WIDTH, hidden]), ("down", [hidden, WIDTH])):
        wide = f"model.layers.0.mlp.{name}_proj.weight"
        header[wide] = {"dtype": "BF16", "shape": shape, "data_offsets": header[wide]["data_offsets"]}
    order = sorted((name for name in header if name != "__metadata__"), key=lambda name: header[name]["data_offsets"])
    pieces, end = [], 0
    for name in order:
        tensor = header[name]
        start, stop = tensor["data_offsets"]
        is_wide = WIDTH in tensor["shape"]
        length = 2 * WIDTH * hidden if is_wide else stop - start
        pieces.append((end, None if is_wide else original[header_end + start : header_end + stop]))
        tensor["data_offsets"] = [end, end + length]
        end += length
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with (directory / "model.safetensors").open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for offset, data in pieces:
            if data is not None:
                file.seek(8 + len(encoded) + offset)
                file.write(data)
        file.truncate(8 + len(encoded) + end)
    return directory
