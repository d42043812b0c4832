"""Swin Transformer of a lazy config as typed configuration."""

from d2serve.building.key_types import Key, flag, integer, only, sizes_per_stage
from d2serve.building.lazy_node import LazyNode
from d2serve.building.lazy_parts import POSITIVE, check_channels, read_norm_eps
from d2serve.model.vision_transformer_config import SwinConfig

STAGES = (0, 1, 2, 3)
TRAINING = ("attn_drop_rate", "drop_path_rate", "drop_rate", "frozen_stages", "use_checkpoint")
QUERY_SCALE = Key(
    None, lambda value: value is None or POSITIVE.check(value), "None or a number above 0"
)


def read_swin(node: LazyNode, channels: int) -> SwinConfig:
    """Read a `SwinTransformer` for images of `channels` channels."""
    node.ignore(*TRAINING)
    check_channels(node, "in_chans", channels)
    node.value("out_indices", only([*STAGES]))
    config = SwinConfig(
        patch_size=node.value("patch_size", only(4)),
        dim=node.value("embed_dim", integer(96, 1)),
        depths=tuple(node.value("depths", sizes_per_stage([2, 2, 6, 2]))),
        heads=tuple(node.value("num_heads", sizes_per_stage([3, 6, 12, 24]))),
        window_size=node.value("window_size", integer(7, 1, 64)),
        mlp_ratio=node.value("mlp_ratio", POSITIVE),
        qkv_bias=node.value("qkv_bias", flag(True)),
        query_scale=node.value("qk_scale", QUERY_SCALE),
        norm_eps=read_norm_eps(node),
        patch_norm=node.value("patch_norm", flag(True)),
        absolute_positions=node.value("ape", flag(False)),
        pretrain_image_size=node.value("pretrain_img_size", integer(224, 1)),
        features=tuple(f"p{stage}" for stage in STAGES),
        feature_stages=STAGES,
    )
    for stage, heads in enumerate(config.heads):
        dim = config.dim * 2**stage
        if dim % heads:
            node.add_conflict("num_heads", f"{heads} must divide {dim}, the channels of its stage")
    return config
