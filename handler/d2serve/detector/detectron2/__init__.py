"""The detector on the upstream `detectron2` package, for models beyond our own network."""
