"""The detector on the upstream `detectron2` package, for models that our own network lacks.

The one place in `handler` that knows the package, which is imported only where it is used.
"""
