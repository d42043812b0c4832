"""Arguments that several networks of lazy configs have."""

from d2serve.building.key_types import Key, integer, is_number, one_of
from d2serve.building.lazy_node import LazyNode

LAYER_NORM = r"torch\.nn\.(?:modules\.normalization\.)?LayerNorm"
POSITIVE = Key(4.0, lambda value: is_number(value) and value > 0, "a number above 0")


def check_channels(node: LazyNode, name: str, channels: int) -> None:
    """Check that a network takes images of `channels` channels."""
    if node.value(name, integer(3, 1)) != channels:
        node.given = {name: 3, **node.given}
        node.add_conflict(name, f"must be {channels}, as many as pixel_mean has")


def read_norm_eps(node: LazyNode) -> float:
    """Read the `eps` of LayerNorm, given by name or as a partial."""
    given = node.given.get("norm_layer")
    if not isinstance(given, dict):
        node.value("norm_layer", one_of(None, "torch.nn.modules.normalization.LayerNorm"))
        return 1e-5
    norm = node.child("norm_layer")
    norm.match_target({"LayerNorm": LAYER_NORM})
    eps: float = norm.value("eps", Key(1e-5, POSITIVE.check, POSITIVE.allowed))
    return eps
