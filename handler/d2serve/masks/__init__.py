"""Masks: from the network's small squares to image pixels, RLE and polygons."""
