"""Makes sockets of every kind, and connects to local ones of the host."""
import os, socket
from attempt import refused


def local(name):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(name)


for name, family, kind, protocol in [
    ("raw ICMP", socket.AF_INET, socket.SOCK_RAW, 1),
    ("raw IPv6", socket.AF_INET6, socket.SOCK_RAW, 58),
    ("ping", socket.AF_INET, socket.SOCK_DGRAM, 1),
    ("packets", 17, socket.SOCK_RAW, 0x300),
    ("netlink", 16, socket.SOCK_RAW, 0),
    ("cryptography", 38, socket.SOCK_SEQPACKET, 0),
    ("virtual machines", 40, socket.SOCK_STREAM, 0),
    ("SCTP", socket.AF_INET, socket.SOCK_STREAM, 132),
    ("Bluetooth", 31, socket.SOCK_RAW, 1),
]:
    refused(name, lambda: socket.socket(family, kind, protocol), "EPERM")
refused("abstract socket of the host", lambda: local("\0" + os.environ["ABSTRACT"]), "ECONNREFUSED")
refused("socket file of the host", lambda: local(os.environ["SOCKET"]), "ENOENT")
for place in ("/run/docker.sock", "/var/run/docker.sock", "/run/dbus/system_bus_socket", "/run/systemd/notify"):
    refused(place, lambda: local(place), "ENOENT", "EACCES")
