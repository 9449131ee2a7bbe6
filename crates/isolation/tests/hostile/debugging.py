"""Looks into its parent, and drives it."""
import os
from attempt import refused, refused_call

parent = os.getppid()
refused_call("ptrace", 16, parent, 0, 0)
refused_call("ptrace", 0, 0, 0, 0)
refused_call("process_vm_readv", parent, 0, 0, 0, 0, 0)
refused_call("process_vm_writev", parent, 0, 0, 0, 0, 0)
for name in ("mem", "environ", "fd", "fdinfo", "ns/net", "root", "cwd", "syscall", "stack"):
    path = f"/proc/{parent}/{name}"
    refused(path, lambda: os.listdir(path) if name in ("fd", "fdinfo", "root", "cwd") else os.open(path, os.O_RDONLY))
refused_call("pidfd_getfd", 0, 0, 0)
