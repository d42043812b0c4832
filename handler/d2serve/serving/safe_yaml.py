"""Load YAML within limits on size, nesting and expansion of aliases."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from d2serve.text_files import decode_text

# Detectron2's own full configs have less than a thousand values.
MAX_VALUES = 100_000
MAX_NESTING = 100
MAX_BYTES = 10_000_000
# What decoding puts in place of bytes that are not UTF-8.
REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class Extent:
    """Size of a node with its aliases expanded."""

    values: int = 0
    height: int = 0

    def plus(self, other: "Extent") -> "Extent":
        """The size of two siblings together."""
        return Extent(self.values + other.values, max(self.height, other.height))


class BoundedLoader(yaml.SafeLoader):
    """Plain YAML of at most MAX_VALUES values and MAX_NESTING levels, aliases expanded.

    Raises:
        yaml.YAMLError: a limit is exceeded, a node contains itself, or a value does not match its
            tag.
    """

    def __init__(self, stream: str | bytes) -> None:
        super().__init__(stream)
        self._extents: dict[int, Extent] = {}
        self._inside = Extent()
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose a node and check the limits."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        before, self._inside = self._inside, Extent()
        self._depth += 1
        self._require(self._depth, Extent(), event)
        node = super().compose_node(parent, index)
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            extent = self._extents.get(id(node))
            if extent is None:
                raise yaml.composer.ComposerError(None, None, "it contains itself", mark)
        else:
            extent = Extent(self._inside.values + 1, self._inside.height + 1)
            self._extents[id(node)] = extent
        self._depth -= 1
        self._inside = before.plus(extent)
        self._require(self._depth, self._inside, event)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct a value; PyYAML does not catch Python errors, such as for a month of 13."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, AttributeError) as error:
            raise yaml.constructor.ConstructorError(
                None, None, str(error), node.start_mark
            ) from error

    def _require(self, depth: int, inside: Extent, event: Any) -> None:
        if inside.values > MAX_VALUES:
            problem = f"more than {MAX_VALUES} values, aliases expanded"
        elif depth + inside.height > MAX_NESTING:
            problem = f"more than {MAX_NESTING} levels deep"
        else:
            return
        raise yaml.composer.ComposerError(None, None, problem, event.start_mark)


def read_yaml_text(path: Path) -> str:
    """Read the text of a YAML file; its comments may have any encoding.

    Raises:
        OSError: the file does not exist, cannot be read, or is not a regular file.
        UnicodeError: the file is neither UTF-8 nor UTF-16 with a byte order mark.
        yaml.YAMLError: the file is too large, or has another encoding and is not YAML.
    """
    if path.exists() and not path.is_file():  # a device may be endless
        raise OSError(f"{path.name} is not a regular file")
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise yaml.YAMLError(f"it is larger than the limit of {MAX_BYTES} bytes")
    try:
        return decode_text(content)
    except UnicodeError:
        text = content.decode("utf-8", "replace")
        # Comments are no tokens.
        if any(REPLACEMENT in str(vars(token).get("value")) for token in yaml.scan(text)):
            raise
        return text


def load_yaml(text: str | bytes) -> Any:
    """Load YAML as `yaml.safe_load` does, within the limits.

    Raises:
        yaml.YAMLError: the text is not YAML, or exceeds a limit.
    """
    return yaml.load(text, BoundedLoader)  # noqa: S506, a safe loader
