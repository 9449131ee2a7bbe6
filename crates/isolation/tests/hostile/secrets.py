"""Reads what is the host's."""
import os
from attempt import refused


def read(path):
    with open(path, "rb") as file:
        return file.read(100)


for path in [
    "/etc/shadow", "/etc/ssh/ssh_host_ed25519_key", "/etc/machine-id", "/etc/hostname", "/root/.bashrc",
    "/root/.ssh/id_rsa", "/var/log/syslog", "/var/lib/dpkg/status", "/boot/config", "/sys/kernel/mm/ksm/run",
    os.environ["SECRET"], os.environ["SECRET"] + "/../" + os.path.basename(os.environ["SECRET"]),
]:
    refused(path, lambda: read(path), "ENOENT", "EACCES")
for name in ("environ", "mem", "maps", "root/etc/shadow", "cwd/x", "fd/0", "exe"):
    refused(f"/proc/1/{name}", lambda: read(f"/proc/1/{name}"), "ENOENT", "EACCES", "EPERM")
print("processes:", sorted({int(name) for name in os.listdir("/proc") if name.isdigit()} - {1, os.getpid()}))
print("more of the host:", sorted(name for name in ("/mnt", "/srv", "/var", "/boot", "/sys") if os.path.exists(name)))
