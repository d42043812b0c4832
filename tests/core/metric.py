"""A stand-in for the server's metrics."""


class Metric:
    """Remembers what it is given, with the values of these labels."""

    def __init__(self, *dimension_names: str) -> None:
        self.dimension_names = dimension_names
        self.given: list[tuple[float, list[str]]] = []

    def add_or_update(self, value: float, dimension_values: list[str]) -> None:
        self.given.append((value, dimension_values))
