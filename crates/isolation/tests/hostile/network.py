"""Connects to the host, and to the world."""
import os, socket
from attempt import refused


def tcp(address, family=socket.AF_INET):
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        connection.connect(address)


def udp(address, family=socket.AF_INET):
    with socket.socket(family, socket.SOCK_DGRAM) as connection:
        return connection.sendto(b"x", address)


refused("loopback of the host", lambda: tcp(("127.0.0.1", int(os.environ["PORT"]))), "ECONNREFUSED")
refused("the world", lambda: tcp(("192.0.2.1", 80)), "ENETUNREACH")
refused("the metadata service", lambda: tcp(("169.254.169.254", 80)), "ENETUNREACH")
refused("the world by UDP", lambda: udp(("192.0.2.1", 53)), "ENETUNREACH")
refused("broadcast", lambda: udp(("255.255.255.255", 9)), "ENETUNREACH", "EACCES")
refused("the world by IPv6", lambda: tcp(("2001:db8::1", 80), socket.AF_INET6), "ENETUNREACH", "EADDRNOTAVAIL", "EAFNOSUPPORT")
