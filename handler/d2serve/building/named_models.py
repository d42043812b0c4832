"""Name the network of another project that a config is for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from d2serve.building.other_projects import OTHER_PROJECTS
from d2serve.building.projects import Project, ProjectModel


@dataclass(frozen=True)
class NamedModel:
    """A network and its project.

    Examples:
        >>> from d2serve.building.projects import Project, ProjectModel
        >>> solo = ProjectModel("SOLOv2", ("MODEL.META_ARCHITECTURE=SOLOv2",))
        >>> adelai = Project("AdelaiDet", "github.com/aim-uofa/AdelaiDet", (), (solo,))
        >>> str(NamedModel(adelai, solo))
        'SOLOv2 of AdelaiDet (github.com/aim-uofa/AdelaiDet)'
    """

    project: Project
    model: ProjectModel

    def __str__(self) -> str:
        name, project = self.model.name, self.project
        label = name if name == project.name else f"{name} of {project.name}"
        return f"{label} ({project.source})"

    @property
    def refusal(self) -> str:
        """The reason why the network is not supported."""
        return f"{self} is part neither of d2serve nor of the detectron2 package"


def find_named_model(given: Mapping[str, Any]) -> NamedModel | None:
    """Return the network that the class names and keys of a config are of, if it is a known one.

    A network that d2serve lacks is named rather than the supported one that its project extends; of
    several projects that with the most keys and values of the config.

    Args:
        given: the values that the config sets, by dotted name.
    """
    found = [
        NamedModel(project, model)
        for project in OTHER_PROJECTS
        if (model := project.find_model(given)) is not None
    ]
    return max(
        found,
        key=lambda named: (not named.model.supported, _count(named.project, given)),
        default=None,
    )


def _count(project: Project, given: Mapping[str, Any]) -> int:
    return sum(project.has(name, value) for name, value in given.items())
