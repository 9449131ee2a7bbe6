"""Puts words into the mouth of whoever sits at the terminal."""
import fcntl
from attempt import refused

for stream in (0, 1, 2):
    refused(f"typing into {stream}", lambda: fcntl.ioctl(stream, 0x5412, b"x"), "EPERM")
    refused(f"pasting into {stream}", lambda: fcntl.ioctl(stream, 0x541C, b"\x03"), "EPERM")
refused("the terminal", lambda: open("/dev/tty"), "ENOENT", "ENXIO")
