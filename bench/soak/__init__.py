"""A server under mixed traffic and faults for a long time; `python -m bench.soak`."""
