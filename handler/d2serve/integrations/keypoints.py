"""Names and visibility of keypoints, which models do not contain."""

from collections.abc import Sequence

from d2serve.errors import CommandError

# COCO's keypoints of a person, in their order.
COCO_KEYPOINTS = (
    "nose",
    *("left_eye", "right_eye", "left_ear", "right_ear"),
    *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
    *("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"),
)
# Keypoints below this score are hidden or guessed; Detectron2 does not draw them.
MIN_KEYPOINT_SCORE = 0.05


def keypoint_names(given: Sequence[str], class_names: Sequence[str]) -> tuple[str, ...]:
    """Return the given names, or COCO's for a model of persons.

    Raises:
        CommandError: no name is given for a model of other classes, or a name occurs twice.

    Examples:
        >>> keypoint_names(["head", "tail"], ["dog", "cat"])
        ('head', 'tail')
        >>> keypoint_names([], ["person"])[0]
        'nose'
    """
    if not given and tuple(class_names) == ("person",):
        return COCO_KEYPOINTS
    if not given:
        raise CommandError(
            f"`keypoints` is empty, and the classes are {', '.join(class_names)}; give the name "
            "of each keypoint in the model's order, separated by commas"
        )
    if len(set(given)) < len(given):
        raise CommandError(f"`keypoints` is {','.join(given)}; expected different names")
    return tuple(given)


def check_keypoint_count(names: Sequence[str], count: int) -> None:
    """Check that each keypoint of the model has a name.

    Raises:
        CommandError: there are more or fewer names than keypoints.
    """
    if len(names) != count:
        raise CommandError(
            f"`keypoints` has {len(names)} names, but the model has {count} keypoints; give the "
            "name of each in the model's order, separated by commas"
        )
