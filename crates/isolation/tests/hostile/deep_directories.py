"""Makes directories in directories."""
import errno, os
made = 0
try:
    while True:
        os.mkdir("d")
        os.chdir("d")
        made += 1
except OSError as error:
    print(f"stopped by {errno.errorcode[error.errno]}", "early" if made < 5000 else "ESCAPED")
