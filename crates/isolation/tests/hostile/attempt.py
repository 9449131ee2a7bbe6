"""What the hostile programs share: they say of each attempt what happened to it."""

import ctypes
import errno
import os

_libc = ctypes.CDLL(None, use_errno=True)


def refused(what, action, *expected):
    """An attempt that must fail, with one of these errors if some are named."""
    try:
        result = action()
    except OSError as error:
        name = errno.errorcode.get(error.errno, str(error))
        right = not expected or name in expected
        print(f"refused {what}: {name}" if right else f"UNEXPECTED {what}: {name}", flush=True)
    else:
        print(f"ESCAPED {what}: {result!r}", flush=True)


def call(number, *arguments):
    """A call of the kernel, by its number on this processor."""
    passed = [argument if isinstance(argument, bytes) else ctypes.c_long(argument) for argument in arguments]
    result = _libc.syscall(ctypes.c_long(number), *passed)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


_X86_64 = {
    "add_key": 248, "bpf": 321, "chroot": 161, "clone": 56, "clone3": 435, "fanotify_init": 300, "fsopen": 430,
    "init_module": 175, "io_uring_setup": 425, "ioperm": 173, "keyctl": 250, "kexec_load": 246, "memfd_create": 319,
    "mount": 165, "mount_setattr": 442, "move_mount": 429, "mq_open": 240, "msgget": 68, "name_to_handle_at": 303,
    "open_by_handle_at": 304, "open_tree": 428, "perf_event_open": 298, "personality": 135, "pidfd_getfd": 438,
    "pidfd_open": 434, "pivot_root": 155, "process_vm_readv": 310, "process_vm_writev": 311, "ptrace": 101, "reboot": 169,
    "request_key": 249, "semget": 64, "sethostname": 170, "setns": 308, "settimeofday": 164, "shmget": 29, "swapon": 167,
    "syslog": 103, "umount2": 166, "unshare": 272, "userfaultfd": 323,
}
_GENERIC = {
    "add_key": 217, "bpf": 280, "chroot": 51, "clone": 220, "clone3": 435, "fanotify_init": 262, "fsopen": 430,
    "init_module": 105, "io_uring_setup": 425, "keyctl": 219, "kexec_load": 104, "memfd_create": 279, "mount": 40,
    "mount_setattr": 442, "move_mount": 429, "mq_open": 180, "msgget": 186, "name_to_handle_at": 264,
    "open_by_handle_at": 265, "open_tree": 428, "perf_event_open": 241, "personality": 92, "pidfd_getfd": 438,
    "pidfd_open": 434, "pivot_root": 41, "process_vm_readv": 270, "process_vm_writev": 271, "ptrace": 117, "reboot": 142,
    "request_key": 218, "semget": 190, "sethostname": 161, "setns": 268, "settimeofday": 170, "shmget": 194, "swapon": 224,
    "syslog": 116, "umount2": 39, "unshare": 97, "userfaultfd": 282,
}
CALLS = _X86_64 if os.uname().machine == "x86_64" else _GENERIC


def refused_call(name, *arguments, expected=("EPERM",)):
    if name in CALLS:
        refused(name, lambda: call(CALLS[name], *arguments), *expected)
