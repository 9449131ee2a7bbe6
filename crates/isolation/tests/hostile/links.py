"""Goes out of its directory by links and by names."""
import os
from attempt import refused

secret = os.environ["SECRET"]


def read(path):
    with open(path, "rb") as file:
        return file.read(100)


os.symlink(secret, "/work/link")
os.symlink("/proc/1/root", "/work/root")
os.symlink("../" * 30 + secret.lstrip("/"), "/tmp/up")
refused("a symbolic link", lambda: read("/work/link"), "ENOENT")
refused("a link from before", lambda: read("/work/planted"), "ENOENT")
refused("a link of the first process", lambda: read("/work/root/etc/shadow"), "EACCES", "ENOENT")
refused("a link upwards", lambda: read("/tmp/up"), "ENOENT")
refused("names upwards", lambda: read("../" * 30 + secret.lstrip("/")), "ENOENT")
refused("a hard link to a program", lambda: os.link("/usr/bin/env", "/work/env"), "EXDEV", "EPERM", "EACCES")
refused("a hard link from the root", lambda: os.link("/etc/passwd", "/work/passwd"), "EXDEV", "EPERM", "EACCES")
refused("moving its directory", lambda: os.rename("/work", "/tmp/work"), "EXDEV", "EACCES", "EROFS", "EBUSY", "EPERM")
refused("listing the root", lambda: os.listdir("/"), "EACCES")
refused("making a directory in the root", lambda: os.mkdir("/escape"), "EACCES", "EROFS")
