"""`d2serve batch` beside a bare loop, its use of Ray's object store, and killed jobs."""
