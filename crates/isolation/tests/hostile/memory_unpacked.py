"""Unpacks a small archive of much."""
import zlib
packer = zlib.compressobj(9)
packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(512)) + packer.flush()
print("packed:", len(packed), flush=True)
print("unpacked:", len(zlib.decompress(packed)))
