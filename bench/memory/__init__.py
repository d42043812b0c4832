"""How much memory a worker holds, and how much the bare model would."""
