"""Forks until it is stopped."""
import errno, os, time
made = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
        made += 1
except OSError as error:
    print(f"stopped by {errno.errorcode[error.errno]} with {made} children")
