"""The picture files that the commands send, and where their overlays go."""

from pathlib import Path

from scripts.errors import CommandError

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
ANY_BYTES = "application/octet-stream"
OVERLAY_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png"}


def find_pictures(path: Path) -> list[Path]:
    """Return the file itself, or every picture in the folder and below it, in order."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise CommandError(f"{path} does not exist; name a picture or a folder of pictures")
    files = (file for file in path.rglob("*") if file.is_file())
    pictures = sorted(file for file in files if file.suffix.lower() in CONTENT_TYPES)
    if not pictures:
        raise CommandError(f"{path} holds no picture; looked for *{', *'.join(CONTENT_TYPES)}")
    return pictures


def content_type_of(picture: Path) -> str:
    """What to declare a file as; the server looks at the bytes of what we do not know."""
    return CONTENT_TYPES.get(picture.suffix.lower(), ANY_BYTES)


def overlay_type_of(picture: Path) -> str:
    """The type to ask an overlay in: the picture's own where the server can write it."""
    return OVERLAY_TYPES.get(picture.suffix.lower(), "image/jpeg")


def overlay_path(picture: Path, source: Path, folder: Path) -> Path:
    """Where the overlay of a picture found under `source` goes: its place and name in `folder`."""
    place = picture.relative_to(source) if source.is_dir() else Path(picture.name)
    known = picture.suffix.lower() in OVERLAY_TYPES
    return folder / (place if known else place.with_name(place.name + ".jpg"))
