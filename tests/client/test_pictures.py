from pathlib import Path

import pytest

from d2serve.client.transport import content_type_of, find_pictures, overlay_path, overlay_type_of
from d2serve.errors import CommandError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_file_is_taken_whatever_its_name(tmp_path: Path) -> None:
    touch(tmp_path, "picture")
    assert find_pictures(tmp_path / "picture") == [tmp_path / "picture"]


def test_a_folder_is_searched_through_in_order(tmp_path: Path) -> None:
    pictures = ["a.JPG", "b/c.jpeg", "b/d.npy", "e.webp", "f.bmp", "g.gif", "h.tiff", "i.png"]
    touch(tmp_path, *reversed(pictures), "notes.txt", "b/labels.json")
    (tmp_path / "folder.png").mkdir()
    assert find_pictures(tmp_path) == [tmp_path / name for name in pictures]


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="absent does not exist"):
        find_pictures(tmp_path / "absent")


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    with pytest.raises(CommandError, match=r"holds no picture; looked for \*\.jpg"):
        find_pictures(tmp_path)


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
def test_types_follow_the_name(name: str, sent_as: str, overlay: str, overlay_name: str) -> None:
    picture = Path("somewhere", name)
    assert content_type_of(picture) == sent_as
    assert overlay_type_of(picture) == overlay
    assert overlay_path(picture, picture, Path("out")) == Path("out", overlay_name)


def test_overlays_of_a_folder_keep_their_places(tmp_path: Path) -> None:
    picture = tmp_path / "deep" / "a.png"
    assert overlay_path(picture, tmp_path, Path("out")) == Path("out", "deep", "a.png")
