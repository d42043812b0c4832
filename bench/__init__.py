"""How fast the project's parts are, beside their peers."""
