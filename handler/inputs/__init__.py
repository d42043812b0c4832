"""HTTP in: bytes and headers become pictures."""
