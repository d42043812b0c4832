"""What the JSON of one picture looks like: one file a format."""
