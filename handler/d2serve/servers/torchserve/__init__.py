"""TorchServe: handler, reverse proxy and launcher."""
