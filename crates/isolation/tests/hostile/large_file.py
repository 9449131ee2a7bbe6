"""Makes one file that is too long, by writing and by leaving holes."""
import os
from attempt import refused


def write():
    with open("/work/long", "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))


def leave_a_hole():
    with open("/work/sparse", "wb") as file:
        os.ftruncate(file.fileno(), 1 << 50)


refused("a long file", write, "EFBIG")
refused("a sparse file", leave_a_hole, "EFBIG")
print("longest:", os.stat("/work/long").st_size)
