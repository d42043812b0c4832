"""The load test: settings and numbers of clients, with a recommendation."""
