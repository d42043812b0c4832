"""Detectron2's networks for inference, on PyTorch and torchvision only.

Parameter names equal Detectron2's, so its checkpoints load strictly.
"""
