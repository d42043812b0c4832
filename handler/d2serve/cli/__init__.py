"""The `d2serve` command."""
