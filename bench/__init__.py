"""How quick and how exact the project's parts are, beside their peers."""
