"""Commands the machine: its clock, its name, its end, its processors."""
import os
from attempt import refused, refused_call

refused_call("settimeofday", 0, 0)
refused_call("sethostname", b"mine", 4)
refused_call("reboot", 0xFEE1DEAD - (1 << 32), 672274793, 0x1234567, 0)
refused("real-time scheduling", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)), "EPERM")
refused("a better priority", lambda: os.nice(-10), "EPERM", "EACCES")
