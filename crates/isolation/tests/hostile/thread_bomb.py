"""Starts threads until it is stopped."""
import os, threading
made = 0
try:
    while True:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        made += 1
except RuntimeError as error:
    print(f"stopped with {made} threads: {error}", flush=True)
os._exit(0)
