"""Predictions in the formats of labelling and computer-vision tools."""
