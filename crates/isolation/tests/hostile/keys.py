"""Uses the kernel's keys, which no namespace keeps apart."""
from attempt import refused_call

refused_call("add_key", b"user", b"name", b"secret", 6, -5)
refused_call("request_key", b"user", b"name", 0, -5)
refused_call("keyctl", 0, -3, 1)
