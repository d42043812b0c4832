"""HTTP out: detections become bytes and headers."""
