"""Becomes root: by asking, by programs that are marked for that, and by marking its own."""
import os, shutil, stat, subprocess
from attempt import refused

me = os.getuid()
refused("setuid", lambda: os.setuid(0), "EPERM", "EINVAL")
refused("setgroups", lambda: os.setgroups([0]), "EPERM", "EINVAL")
refused("owning a file as root", lambda: os.chown("/work/root.py", 0, 0), "EPERM", "EINVAL")
shutil.copy("/usr/bin/id", "/work/id")
os.chmod("/work/id", 0o6755)
marked = [os.path.join("/usr/bin", name) for name in os.listdir("/usr/bin")]
marked = [path for path in marked if os.path.isfile(path) and os.stat(path).st_mode & stat.S_ISUID]
for command in [["/work/id", "-u"], ["su", "-c", "id -u"], ["newgrp"], ["mount", "-t", "tmpfs", "none", "/work"]]:
    try:
        ran = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=20)
    except OSError as error:
        print("refused", command, error.strerror)
        continue
    escaped = ran.stdout.strip() == "0" or (command[0] == "mount" and ran.returncode == 0)
    print("ESCAPED" if escaped else "contained", command, ran.stdout.strip())
with open("/proc/self/status") as file:
    status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
print("capabilities:", {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")})
print("no new privileges:", status["NoNewPrivs"], "filters:", status["Seccomp"], "same user:", me == os.getuid() != 0)
