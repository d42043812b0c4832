"""Benchmarks, load tests and soak of d2serve: `python -m bench --help`."""
