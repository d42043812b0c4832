"""The models of a manifest: archives on this machine, or in S3."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from d2serve.errors import CommandError
from d2serve.servers.asgi.model_folders import find_archive, model_name_of
from d2serve.serving.archive_files import unpacked_archive
from d2serve.serving.model_config import MODEL_CONFIG_FILE, read_settings
from d2serve.settings import Settings

SCHEME = "s3://"
URI = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/\S*[^/\s]\.(mar|tar\.gz)")


@dataclass(frozen=True)
class Model:
    """A model to serve.

    Attributes:
        source: the path of the archive on this machine, or its s3:// URI.
        name: the name in the model's routes.
        settings: those of the archive; the defaults for an archive in S3, which is not read.
    """

    source: str
    name: str
    settings: Settings

    @property
    def is_in_s3(self) -> bool:
        """True if the source is an s3:// URI."""
        return self.source.startswith(SCHEME)

    def path_in(self, folder: str) -> str:
        """The source as a pod sees it, where `folder` contains the archives of this machine."""
        return self.source if self.is_in_s3 else f"{folder}/{Path(self.source).name}"


def read_models(sources: Sequence[str]) -> list[Model]:
    """Check the archives, and read their settings.

    Args:
        sources: paths of archives, or s3:// URIs.

    Raises:
        ArchiveError: an archive is missing, damaged or malicious.
        SettingsError: a setting of an archive is not valid.
        CommandError: a URI is not one of an archive, or two models have the same name.
    """
    models: dict[str, Model] = {}
    for source in sources:
        model = _read_uri(source) if "://" in source else _read_archive(Path(source))
        if model.name in models:
            raise CommandError(
                f"{source} and {models[model.name].source} have the name {model.name!r}; rename "
                "one of the archives"
            )
        models[model.name] = model
    return list(models.values())


def _read_uri(uri: str) -> Model:
    if not URI.fullmatch(uri):
        raise CommandError(
            f"MODEL is {uri!r}, expected the path of an archive, or an S3 URI of one such as "
            "s3://my-bucket/models/my-model.mar"
        )
    return Model(uri, model_name_of(Path("/", PurePosixPath(uri).name)), Settings())


def _read_archive(path: Path) -> Model:
    path = find_archive(path).resolve()
    with unpacked_archive(path) as folder:
        settings = read_settings(folder / MODEL_CONFIG_FILE, environment={})
    return Model(str(path), model_name_of(path), settings)
