# Complains for ever.
while :; do echo spam >&2; done
