"""Leaves a process behind that goes on writing to the results."""
import os
if os.fork() == 0:
    os.setsid()
    while True:
        with open("/work/result", "a") as file:
            file.write("late\n")
print("over")
