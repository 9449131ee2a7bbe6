"""Writes to programs, libraries and settings: its own, the system's, and those of what contains it."""
import os, sys
from attempt import refused

FLAGS = os.O_WRONLY
for path in [
    "/proc/self/exe", os.path.realpath(sys.executable), os.__file__, "/usr/bin/env", "/bin/sh", "/etc/passwd",
    "/etc/ld.so.cache", "/run/stage", "/run/input", "/proc/1/exe", "/usr/lib/os-release",
]:
    refused(path, lambda: os.open(path, FLAGS), "EACCES", "EROFS", "ETXTBSY", "ENOENT", "EPERM")
for path in ("/usr/bin/x", "/etc/x", "/run/x", "/dev/x", "/x", "/proc/x", os.path.dirname(os.__file__) + "/x"):
    refused(path, lambda: os.open(path, FLAGS | os.O_CREAT, 0o600), "EACCES", "EROFS", "ENOENT", "EPERM")
refused("chmod", lambda: os.chmod("/usr/bin/env", 0o777), "EROFS", "EPERM")
refused("chown", lambda: os.chown("/work", 0, 0), "EPERM", "EINVAL")
refused("running what contains it", lambda: os.execv("/run/stage", ["stage", "contain", "outer"]), "EACCES")
