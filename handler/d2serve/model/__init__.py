"""Detectron2's networks for inference, on plain torch and torchvision.

Parameter names equal Detectron2's, so its checkpoints load strictly.
"""
