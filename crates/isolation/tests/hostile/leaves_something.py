"""Leaves something for the next program, and looks for what the last one left."""
import os
for place in ("/work", "/tmp", "/dev/shm"):
    path = place + "/left-behind"
    print("ESCAPED" if os.path.exists(path) else "nothing in", place)
    open(path, "w").close()
