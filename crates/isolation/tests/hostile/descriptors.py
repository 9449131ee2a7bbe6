"""Opens everything it can, and fills what it opened."""
import errno, os, socket
held = []
try:
    while True:
        one, other = socket.socketpair()
        held += [one, other]
except OSError as error:
    print(f"stopped by {errno.errorcode[error.errno]} with {len(held)} sockets")
