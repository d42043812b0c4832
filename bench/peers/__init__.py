"""Our server beside others that serve the same model, over real HTTP."""
