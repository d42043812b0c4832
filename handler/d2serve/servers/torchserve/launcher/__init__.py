"""Start and stop TorchServe on this machine."""
