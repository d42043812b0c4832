"""Build archives: Detectron2 configs and checkpoints -> model.json and weights. Never shipped."""
