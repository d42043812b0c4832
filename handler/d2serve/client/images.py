"""Find image files, and derive content types and overlay paths from their names."""

from pathlib import Path

from d2serve.errors import CommandError

CONTENT_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
    ".gif": "image/gif",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".npy": "application/x-npy",
}
UNKNOWN_TYPE = "application/octet-stream"
OVERLAY_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png"}


def find_images(path: Path) -> list[Path]:
    """List the image files of a folder and its subfolders, sorted; of a file, the file itself.

    Raises:
        CommandError: the path does not exist, or the folder contains no image.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise CommandError(f"{path} does not exist; give an image or a folder of images")
    files = (file for file in path.rglob("*") if file.is_file())
    images = sorted(file for file in files if file.suffix.lower() in CONTENT_TYPES)
    if not images:
        raise CommandError(f"{path} contains no image; looked for *{', *'.join(CONTENT_TYPES)}")
    return images


def content_type_of(image: Path) -> str:
    """Return the Content-Type for a file name; the server detects the format of unknown ones."""
    return CONTENT_TYPES.get(image.suffix.lower(), UNKNOWN_TYPE)


def overlay_type_of(image: Path) -> str:
    """Return the overlay's type: the image's own where the server can write it, else JPEG."""
    return OVERLAY_TYPES.get(image.suffix.lower(), "image/jpeg")


def overlay_path(image: Path, source: Path, folder: Path) -> Path:
    """Return the overlay's path below `folder`: the image's path relative to `source`."""
    relative = image.relative_to(source) if source.is_dir() else Path(image.name)
    keeps_name = image.suffix.lower() in OVERLAY_TYPES
    return folder / (relative if keeps_name else relative.with_name(relative.name + ".jpg"))
