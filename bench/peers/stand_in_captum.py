"""Stands in for `captum.attr` where that is not installed.

TorchServe's vision handlers import it for explanations; a prediction runs none of it.
"""

from typing import Any


class IntegratedGradients:
    """Is made with every model, and asked nothing."""

    def __init__(self, model: Any) -> None:
        self.model = model
