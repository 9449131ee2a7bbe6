"""Looks for secrets in its environment and among what is open."""
import os
print("variables:", sorted(os.environ))
print("open:", sorted(os.readlink("/proc/self/fd/" + name).split(":")[0] for name in os.listdir("/proc/self/fd") if int(name) < 3))
print("more:", [name for name in range(3, 256) if os.path.exists(f"/proc/self/fd/{name}")])
