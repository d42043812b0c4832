"""The detector on the upstream `detectron2` package, for models that our own network lacks."""
