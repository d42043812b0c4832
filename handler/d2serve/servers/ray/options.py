"""The arguments of a Ray Serve application."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from d2serve.errors import SettingsError

ARCHIVE = "archive"
AUTO = "auto"
DEFAULT_FORWARD_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class ApplicationOptions:
    """The arguments of `d2serve.servers.ray:build`.

    Attributes:
        archive: path of an archive (.mar), of a package (.tar.gz) or of an unpacked archive on each
            node, or the s3:// URI of an archive or package.
        name: name of the model; empty for the archive's.
        settings: settings of the archive's model-config.yaml, section `handler`, to override.
        num_replicas: number of replicas, or `auto` to scale with the load.
        autoscaling: options of Ray Serve's autoscaling; requires `num_replicas: auto`, or none.
        num_cpus: CPUs that Ray reserves for a replica, and that its threads use; None reserves one,
            and uses all of the node, divided by the number of replicas.
        num_gpus: GPUs per replica: 0, 1, or a part of one.
        resources: custom resources that a replica needs, as Ray defines them.
        cors_origins: origins whose web pages may send requests.
        token_file: file on each node with the token that clients need; empty for the variable
            D2SERVE_SERVER_TOKEN of the replica, or no token.
        forward_timeout_s: the replica is unhealthy when a forward pass takes longer, in seconds.
        check_model: whether `build` loads the model and processes test images.
        playground: whether `GET /` is the playground page.

    Raises:
        SettingsError: a value is not valid; the message names the key.

    Examples:
        >>> ApplicationOptions.from_args({"archive": "shapes.mar", "num_replicas": 2}).num_replicas
        2
        >>> ApplicationOptions.from_args({"archive": "shapes.mar", "num_gpus": 2})
        Traceback (most recent call last):
            ...
        d2serve.errors.SettingsError: argument num_gpus of the Ray Serve application is 2, \
expected a number from 0 to 1; a replica runs its model on one GPU
    """

    archive: str
    name: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    num_replicas: int | str | None = None
    autoscaling: Mapping[str, Any] = field(default_factory=dict)
    num_cpus: float | None = None
    num_gpus: float = 0
    resources: Mapping[str, float] = field(default_factory=dict)
    cors_origins: tuple[str, ...] = ()
    token_file: str = ""
    forward_timeout_s: float = DEFAULT_FORWARD_TIMEOUT_S
    check_model: bool = True
    playground: bool = True

    @classmethod
    def from_args(cls, args: Mapping[str, Any]) -> "ApplicationOptions":
        """Check the arguments of a Serve config.

        Raises:
            SettingsError: a key is unknown, `archive` is missing, or a value is not valid.
        """
        accepted = [each.name for each in fields(cls)]
        for name in args:
            if name not in accepted:
                raise SettingsError(
                    f"argument {name} of the Ray Serve application does not exist; accepted are "
                    f"{', '.join(accepted)}"
                )
        if ARCHIVE not in args:
            raise SettingsError(
                "argument archive of the Ray Serve application is missing; give the path or the "
                "s3:// URI of an archive, such as args: {archive: /models/shapes.mar}"
            )
        origins = args.get("cors_origins", ())
        values = {**args, "cors_origins": tuple(origins) if isinstance(origins, list) else origins}
        return cls(**values)

    def __post_init__(self) -> None:
        checks: dict[str, tuple[Callable[[Any], bool], str]] = {
            "archive": (_is_text, "a path or an s3:// URI"),
            "name": (_is_name, "letters, digits, - and _"),
            "settings": (_is_mapping, "a mapping such as {batch_wait_ms: 5}"),
            "num_replicas": (_is_replicas, "an integer of at least 1, or auto"),
            "autoscaling": (_is_mapping, "a mapping such as {min_replicas: 1, max_replicas: 4}"),
            "num_cpus": (_is_cpus, "a number above 0"),
            "num_gpus": (_is_part, "a number from 0 to 1; a replica runs its model on one GPU"),
            "resources": (_is_mapping, "a mapping such as {accelerator_type:L4: 0.001}"),
            "cors_origins": (_is_texts, "a list such as [https://example.org]"),
            "token_file": (_is_text_or_empty, "the path of a file"),
            "forward_timeout_s": (_is_at_least_one, "a number of at least 1"),
            "check_model": (_is_switch, "true or false"),
            "playground": (_is_switch, "true or false"),
        }
        for name, (is_valid, expected) in checks.items():
            value = getattr(self, name)
            if not is_valid(value):
                raise SettingsError(
                    f"argument {name} of the Ray Serve application is {value!r}, "
                    f"expected {expected}"
                )
        if self.autoscaling and self.num_replicas not in (None, AUTO):
            raise SettingsError(
                f"argument num_replicas of the Ray Serve application is {self.num_replicas!r}, "
                "expected auto, because autoscaling is given; remove one of them"
            )

    @property
    def scales(self) -> bool:
        """True if the number of replicas changes with the load."""
        return self.num_replicas == AUTO or bool(self.autoscaling)

    @property
    def has_several_replicas(self) -> bool:
        """True if there is more than one replica, at least at times."""
        return self.scales or self.fewest_replicas > 1

    @property
    def fewest_replicas(self) -> int:
        """The number of replicas that always run, at least 1."""
        if self.scales:
            return max(1, int(self.autoscaling.get("min_replicas", 1)))
        return int(self.num_replicas or 1)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_text_or_empty(value: Any) -> bool:
    return isinstance(value, str)


def _is_name(value: Any) -> bool:
    return (isinstance(value, str) and value.replace("-", "_").isidentifier()) or value == ""


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_replicas(value: Any) -> bool:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    return value is None or value == AUTO or is_count


def _is_cpus(value: Any) -> bool:
    return value is None or (_is_number(value) and value > 0)


def _is_part(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_at_least_one(value: Any) -> bool:
    return _is_number(value) and value >= 1


def _is_texts(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(each, str) for each in value)


def _is_switch(value: Any) -> bool:
    return isinstance(value, bool)
