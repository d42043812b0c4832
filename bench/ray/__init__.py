"""Ray Serve beside the ASGI server, and d2serve's batcher beside Ray's `serve.batch`."""
