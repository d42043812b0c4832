"""The bundled shapes model: its pictures, its training with Detectron2 and its model card."""
