"""Opens devices, and makes some."""
import os, stat
from attempt import refused

print("devices:", sorted(os.listdir("/dev")))
for name in ("mem", "kmem", "port", "kmsg", "sda", "vda", "nvme0n1", "tty", "console", "ptmx", "fuse", "kvm", "net/tun", "nvidia0"):
    refused(name, lambda: os.open("/dev/" + name, os.O_RDWR), "ENOENT", "ENXIO")
for name, kind in (("disk", stat.S_IFBLK), ("memory", stat.S_IFCHR)):
    refused("making " + name, lambda: os.mknod("/work/" + name, kind | 0o600, os.makedev(1, 1)), "EPERM")
os.mkfifo("/work/fifo")
print("a fifo can be made")
