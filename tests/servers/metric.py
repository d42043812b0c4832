"""A metric that TorchServe declares, and what is published in it."""


class Metric:
    """Records values with their labels.

    Args:
        labels: names of its labels.
    """

    def __init__(self, *labels: str) -> None:
        self.dimension_names = labels
        self.recorded: list[tuple[float, list[str]]] = []

    def add_or_update(self, value: float, dimension_values: list[str]) -> None:
        self.recorded.append((value, dimension_values))
