"""Writes for ever."""
import os
while True:
    os.write(1, b"spam\n" * 1000)
