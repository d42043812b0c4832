"""The soak: a server under mixed and hostile traffic and faults, with every response checked."""
