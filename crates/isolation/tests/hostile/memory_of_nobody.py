"""Asks for memory that belongs to no process, and messages that wait for ever."""
from attempt import refused_call
refused_call("memfd_create", b"hidden", 0)
refused_call("shmget", 0, 1 << 30, 0o1600)
refused_call("msgget", 0, 0o1600)
refused_call("semget", 0, 1, 0o1600)
refused_call("mq_open", b"queue", 0o102, 0o600, 0, expected=("EMFILE", "EPERM", "EACCES", "ENOSYS"))
