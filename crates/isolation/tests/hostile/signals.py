"""Signals every process there might be."""
import os, signal
reached = []
for number in range(2, 1 << 16):
    if number != os.getpid():
        try:
            os.kill(number, signal.SIGKILL)
            reached.append(number)
        except OSError:
            pass
print("reached:", reached)
