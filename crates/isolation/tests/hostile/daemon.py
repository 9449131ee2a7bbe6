"""Leaves a process behind that wants to outlive it, holding its output."""
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
print("left behind:", sys.argv[1])
