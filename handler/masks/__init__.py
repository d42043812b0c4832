"""Masks, from the network's small squares to the picture's pixels."""
