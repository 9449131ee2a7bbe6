"""Computes for ever, and ignores the signal that says that its time is up."""
import signal
signal.signal(signal.SIGXCPU, signal.SIG_IGN)
while True:
    pass
