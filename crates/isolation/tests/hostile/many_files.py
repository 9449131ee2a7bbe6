"""Unpacks an archive of empty files, as it were."""
import errno
made = 0
try:
    while True:
        open(f"/work/{made}", "w").close()
        made += 1
except OSError as error:
    print(f"stopped by {errno.errorcode[error.errno]}", "early" if made < 5000 else "ESCAPED")
