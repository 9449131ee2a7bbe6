#!/proc/self/exe
What contains this would be its interpreter.
