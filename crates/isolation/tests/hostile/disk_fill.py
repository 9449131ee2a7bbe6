"""Fills every directory that it may write to."""
import errno, os
total = 0
for place in ("/work", "/tmp", "/dev/shm"):
    number = 0
    while True:
        try:
            with open(f"{place}/fill-{number}", "wb") as file:
                for _ in range(4):
                    total += file.write(os.urandom(1 << 20))
                    file.flush()
        except OSError as error:
            print(f"{place}: {errno.errorcode[error.errno]}", flush=True)
            break
        number += 1
print("written:", "little" if total <= 17 << 20 else "ESCAPED")
