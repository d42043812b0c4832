"""How a run looks; needs matplotlib. Colours are Okabe and Ito's, which most colour-blind readers
can tell apart."""
