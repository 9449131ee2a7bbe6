"""Raises its own limits."""
import resource
from attempt import refused


def raise_limit(name):
    try:
        resource.setrlimit(name, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except ValueError as error:
        raise PermissionError(1, str(error)) from None


for name in ("CPU", "FSIZE", "NPROC", "NOFILE", "CORE", "STACK", "MSGQUEUE"):
    refused(name, lambda: raise_limit(getattr(resource, "RLIMIT_" + name)), "EPERM")
