"""Reads what the kernel tells of the host, and commands it."""
import os
from attempt import refused


def write(path):
    with open(path, "w") as file:
        return file.write("1")


def read(path):
    with open(path, "rb") as file:
        return file.read(4096)


for path in [
    "/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger",
    "/proc/self/oom_score_adj", "/proc/self/uid_map", "/proc/self/attr/current", "/proc/irq/0/smp_affinity",
]:
    refused("writing " + path, lambda: write(path))
for path in ("cmdline", "kallsyms", "kcore", "keys", "kmsg", "modules", "config.gz", "partitions", "timer_list", "iomem"):
    path = "/proc/" + path
    try:
        told = read(path)
    except OSError as error:
        told = b""
    print(f"ESCAPED {path}: {told[:40]!r}" if told else f"nothing in {path}")
for path in ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/driver", "/proc/acpi", "/proc/tty"):
    told = os.listdir(path) if os.path.isdir(path) and os.access(path, os.R_OK) else []
    print(f"ESCAPED {path}: {told}" if told else f"nothing in {path}")
