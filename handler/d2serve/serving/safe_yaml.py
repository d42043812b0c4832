"""Load YAML within bounds on nesting and expansion."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

# Detectron2's own full configs have under a thousand.
MOST_VALUES = 100_000
DEEPEST_NESTING = 100
MOST_BYTES = 10_000_000


@dataclass(frozen=True)
class Extent:
    """How large a node is, with its aliases written out."""

    values: int = 0
    height: int = 0

    def beside(self, other: "Extent") -> "Extent":
        """Both together, side by side."""
        return Extent(self.values + other.values, max(self.height, other.height))


class BoundedLoader(yaml.SafeLoader):
    """Plain YAML of at most MOST_VALUES values, DEEPEST_NESTING deep, aliases written out.

    Raises:
        yaml.YAMLError: there is more of it, a node holds itself, or a value is none of its tag.
    """

    def __init__(self, stream: str | bytes) -> None:
        super().__init__(stream)
        self._extents: dict[int, Extent] = {}
        self._inside = Extent()
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """As PyYAML's, with an eye on how much there is."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        before, self._inside = self._inside, Extent()
        self._depth += 1
        self._require(self._depth, Extent(), event)
        node = super().compose_node(parent, index)
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            extent = self._extents.get(id(node))
            if extent is None:
                raise yaml.composer.ComposerError(None, None, "it holds itself", mark)
        else:
            extent = Extent(self._inside.values + 1, self._inside.height + 1)
            self._extents[id(node)] = extent
        self._depth -= 1
        self._inside = before.beside(extent)
        self._require(self._depth, self._inside, event)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """As PyYAML's, whose constructors let Python's own errors through, as for a month of 13."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, AttributeError) as error:
            raise yaml.constructor.ConstructorError(
                None, None, str(error), node.start_mark
            ) from error

    def _require(self, depth: int, inside: Extent, event: Any) -> None:
        if inside.values > MOST_VALUES:
            problem = f"more than {MOST_VALUES} values, aliases written out"
        elif depth + inside.height > DEEPEST_NESTING:
            problem = f"nested more than {DEEPEST_NESTING} deep"
        else:
            return
        raise yaml.composer.ComposerError(None, None, problem, event.start_mark)


def read_yaml_text(path: Path) -> str:
    """The text of a YAML file.

    Raises:
        OSError: there is no such file, it is none but a device, say, or it cannot be read.
        UnicodeDecodeError: it is no text.
        yaml.YAMLError: it is too large.
    """
    if path.exists() and not path.is_file():  # a device may have no end
        raise OSError(f"{path.name} is no file")
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise yaml.YAMLError(f"it is larger than {MOST_BYTES} bytes")
    return content.decode("utf-8")


def load_yaml(text: str | bytes) -> Any:
    """What `yaml.safe_load` gives, of YAML that stays small.

    Raises:
        yaml.YAMLError: it is no YAML, or too much of it.
    """
    return yaml.load(text, BoundedLoader)  # noqa: S506, a safe loader
