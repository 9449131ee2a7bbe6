"""Mounts, and makes worlds in which it would be root."""
import os
from attempt import CALLS, call, refused, refused_call

refused_call("mount", b"none", b"/work", b"tmpfs", 0, 0)
refused_call("mount", b"/", b"/work", 0, 4096, 0)
refused_call("umount2", b"/proc", 2)
refused_call("chroot", b"/work")
refused_call("pivot_root", b"/work", b"/work")
refused_call("fsopen", b"tmpfs", 0)
refused_call("open_tree", -100, b"/", 1)
refused_call("move_mount", -100, b"/work", -100, b"/tmp", 0)
refused_call("mount_setattr", -100, b"/usr", 0, 0, 0)
for name, flag in [("user", 0x10000000), ("mount", 0x20000), ("network", 0x40000000), ("processes", 0x20000000)]:
    refused("unshare " + name, lambda: call(CALLS["unshare"], flag), "EPERM")
    refused("clone " + name, lambda: call(CALLS["clone"], flag | 17, 0, 0, 0, 0), "EPERM")
refused_call("clone3", 0, 0, expected=("ENOSYS",))
for name in ("user", "mnt", "net", "pid"):
    with open(f"/proc/self/ns/{name}") as own:
        refused("setns " + name, lambda: call(CALLS["setns"], own.fileno(), 0), "EPERM")
