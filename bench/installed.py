"""Size of the installed packages that an extra of d2serve adds."""

from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

D2SERVE = "d2serve"


def extra_bytes(python: Path, extra: str) -> int:
    """Bytes of the packages that d2serve needs with an extra but not without, as installed in the
    environment of `python`, an executable in its folder `bin`."""
    [folder] = (python.parents[1] / "lib").glob("python*/site-packages")
    installed = distributions(path=[str(folder)])
    known: dict[str, Distribution] = {canonicalize_name(each.name): each for each in installed}
    needed, base = (set(requirements(known, D2SERVE, extras)) for extras in ({extra}, set[str]()))
    return sum(_size(known[name]) for name in needed - base)


def requirements(
    known: Mapping[str, Distribution], root: str, extras: set[str]
) -> dict[str, set[str]]:
    """The installed distributions that `root` with extras needs, itself included, by name, each
    with the extras that are needed."""
    needed: dict[str, set[str]] = {}
    waiting = [(root, extras)]
    while waiting:
        name, own = waiting.pop()
        if name not in known or (name in needed and own <= needed[name]):
            continue
        needed.setdefault(name, set()).update(own)
        waiting += _direct(known[name], needed[name])
    return needed


def _direct(distribution: Distribution, extras: set[str]) -> Iterator[tuple[str, set[str]]]:
    for text in distribution.requires or ():
        required = Requirement(text)
        marker = required.marker
        if marker is None or any(marker.evaluate({"extra": each}) for each in ("", *extras)):
            yield canonicalize_name(required.name), set(required.extras)


def _size(distribution: Distribution) -> int:
    paths = (Path(str(distribution.locate_file(file))) for file in distribution.files or ())
    return sum(int(path.stat().st_size) for path in paths if path.is_file())
