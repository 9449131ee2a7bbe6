"""Asks the kernel for what has opened it before."""
from attempt import refused_call

refused_call("bpf", 0, 0, 0)
refused_call("io_uring_setup", 8, 0)
refused_call("userfaultfd", 1)
refused_call("perf_event_open", 0, 0, -1, -1, 0)
refused_call("fanotify_init", 0, 0)
refused_call("name_to_handle_at", -100, b"/", 0, 0, 0)
refused_call("open_by_handle_at", -100, 0, 0)
refused_call("init_module", 0, 0, 0)
refused_call("kexec_load", 0, 0, 0, 0)
refused_call("syslog", 3, 0, 0)
refused_call("ioperm", 0, 1, 1)
refused_call("personality", 0x0040000)
refused_call("swapon", b"/work/x", 0)
