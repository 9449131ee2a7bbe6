# Stops itself, so that it never ends.
kill -STOP $$
