"""Which of the package's configs a file is."""

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from handler.rcnn.yaml_config import ConfigError

# Projects that come with the package, and what adds their keys to a config.
PROJECTS = {
    "detectron2.projects.point_rend": "add_pointrend_config",
    "detectron2.projects.deeplab": "add_deeplab_config",
    "detectron2.projects.panoptic_deeplab": "add_panoptic_deeplab_config",
}


def read_cfg(path: Path) -> Any:
    """The config among the keys of the package, or else of the first project that has them all.

    A project's keys are not added where they are not needed, because some change defaults.
    """
    from detectron2.config import get_cfg

    problems = []
    for name, add_keys in _key_sets():
        cfg = get_cfg()
        try:
            add_keys(cfg)
            cfg.merge_from_file(str(path))
        except (ImportError, KeyError, ValueError, AssertionError) as error:
            problems.append(f"{name}: {error.args[0] if error.args else type(error).__name__}")
        else:
            return cfg
    raise ConfigError("detectron2 does not take this config:\n  " + "\n  ".join(problems))


def _key_sets() -> Iterator[tuple[str, Callable[[Any], None]]]:
    yield "detectron2", lambda cfg: None
    for module, function in PROJECTS.items():
        yield module, partial(_add_project_keys, module, function)


def _add_project_keys(module: str, function: str, cfg: Any) -> None:
    getattr(import_module(module), function)(cfg)
