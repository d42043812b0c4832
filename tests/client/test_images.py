from pathlib import Path

import pytest

from d2serve.client.images import content_type_of, find_images, overlay_path, overlay_type_of
from d2serve.errors import CommandError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_file_with_any_name(tmp_path: Path) -> None:
    touch(tmp_path, "image")
    assert find_images(tmp_path / "image") == [tmp_path / "image"]


def test_folder_is_searched_in_order(tmp_path: Path) -> None:
    images = ["a.JPG", "b/c.jpeg", "b/d.npy", "e.webp", "f.bmp", "g.gif", "h.tiff", "i.png"]
    touch(tmp_path, *reversed(images), "notes.txt", "b/labels.json")
    (tmp_path / "folder.png").mkdir()
    assert find_images(tmp_path) == [tmp_path / name for name in images]


def test_missing_path(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="absent does not exist"):
        find_images(tmp_path / "absent")


def test_folder_without_images(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    with pytest.raises(CommandError, match=r"contains no image; looked for \*\.jpg"):
        find_images(tmp_path)


@pytest.mark.parametrize(
    ("name", "sent_as", "overlay", "overlay_name"),
    [
        ("a.jpg", "image/jpeg", "image/jpeg", "a.jpg"),
        ("a.JPEG", "image/jpeg", "image/jpeg", "a.JPEG"),
        ("a.png", "image/png", "image/png", "a.png"),
        ("a.tif", "image/tiff", "image/jpeg", "a.tif.jpg"),
        ("a.npy", "application/x-npy", "image/jpeg", "a.npy.jpg"),
        ("a", "application/octet-stream", "image/jpeg", "a.jpg"),
    ],
)
def test_types_depend_on_the_name(name: str, sent_as: str, overlay: str, overlay_name: str) -> None:
    image = Path("somewhere", name)
    assert content_type_of(image) == sent_as
    assert overlay_type_of(image) == overlay
    assert overlay_path(image, image, Path("out")) == Path("out", overlay_name)


def test_overlays_keep_their_folders(tmp_path: Path) -> None:
    image = tmp_path / "deep" / "a.png"
    assert overlay_path(image, tmp_path, Path("out")) == Path("out", "deep", "a.png")
