"""Fills the memory with processes of which none has much."""
import os, time
for _ in range(8):
    if os.fork() == 0:
        held = bytearray(os.urandom(1 << 20)) * 96
        time.sleep(600)
        os._exit(0)
time.sleep(600)
