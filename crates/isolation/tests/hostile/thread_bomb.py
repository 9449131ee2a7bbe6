"""Starts threads until it is stopped."""
import os, threading
made = 0
try:
    while True:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        made += 1
except RuntimeError as error:
    print(f"stopped: {error}", "early" if made < 24 else "ESCAPED", flush=True)
os._exit(0)
