"""A labeling config for each control tag."""

from tests.integrations.samples import CLASS_NAMES, KEYPOINTS


def config(*tags: str, names: tuple[str, ...] = CLASS_NAMES, more: str = "") -> str:
    """A labeling config with these control tags, each with a label for each name."""
    labels = "".join(f'<Label value="{name}"/>' for name in names)
    controls = "".join(f'<{tag} name="{tag}" toName="photo">{labels}</{tag}>' for tag in tags)
    return f'<View><Image name="photo" value="$image"/>{controls}{more}</View>'


POINTS = "".join(f'<Label value="{name}"/>' for name in KEYPOINTS)
BRUSH = '<BrushLabels name="BrushLabels" toName="photo"><Label value="dog"/></BrushLabels>'
CONFIGS = {
    "brush": config("BrushLabels"),
    "polygon": config("PolygonLabels"),
    "rectangle": config("RectangleLabels"),
    "keypoint": config(
        "RectangleLabels",
        more=f'<KeyPointLabels name="points" toName="photo">{POINTS}</KeyPointLabels>',
    ),
    "indexed": config(
        "RectangleLabels",
        more='<KeyPointLabels name="points" toName="photo"><Label value="Kopf" model_index="0"/>'
        '<Label value="Schwanz" model_index="1"/></KeyPointLabels>',
    ),
    # A brush for dogs, a polygon for cats, nothing for traffic lights.
    "several": config("RectangleLabels", "PolygonLabels", names=("cat",), more=BRUSH),
}
