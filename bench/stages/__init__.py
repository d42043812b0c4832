"""The stages of a request's way, each beside its peers: `contests` of every module."""
