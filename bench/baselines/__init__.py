"""Other servers of the same models, over HTTP."""
