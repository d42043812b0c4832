"""The playground in front of the real ASGI server."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, expect

from tests.environment import clean_environment
from tests.polling import wait_until
from tests.serving.asgi_server import AsgiServer
from tests.serving.playground.conftest import Open

SHOWN = "#instances [role=option]:not([hidden])"


def open_files(page: Page, *files: Path) -> None:
    page.set_input_files("#files", list(files))
    expect(page.locator("#gallery [data-state=done]")).to_have_count(len(files))
    expect(page.locator("#busy")).to_be_hidden()


def set_threshold(page: Page, value: float) -> None:
    page.locator("#threshold").fill(str(value))


def pixels_of(page: Page, canvas: str) -> Any:
    """The bytes of a canvas as a PNG data URL, to see whether it changes."""
    return page.locator(canvas).evaluate("canvas => canvas.toDataURL()")


@pytest.fixture
def page(open_page: Open, asgi: AsgiServer, jpeg: Path) -> Page:
    """The page, with an image in which instances are found."""
    opened = open_page(asgi.url)
    open_files(opened, jpeg)
    return opened


@pytest.fixture
def expected(asgi: AsgiServer, jpeg: Path, http: httpx.Client) -> dict[str, Any]:
    response = http.post(f"{asgi.url}/predictions/shapes", content=jpeg.read_bytes())
    content: dict[str, Any] = response.json()
    return content


def test_instances_of_the_response_are_listed(page: Page, expected: dict[str, Any]) -> None:
    confident = [score for score in expected["scores"] if score >= 0.5]
    expect(page.locator(SHOWN)).to_have_count(len(confident))
    assert page.locator(f"{SHOWN} .name").all_inner_texts() == expected["names"][: len(confident)]
    total = len(expected["scores"])
    expect(page.locator("#status")).to_have_text(f"{len(confident)} of {total} instances shown")
    facts = page.locator("#facts").inner_text()
    for text in ("640 \u00d7 480 px", "forward", "decode", "Round trip", "48.7 kB"):
        assert text in facts


def test_filters_change_the_drawing_without_a_request(page: Page, expected: dict[str, Any]) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    before = pixels_of(page, "#overlay")
    image = pixels_of(page, "#base")
    set_threshold(page, 0.99)
    best = [score for score in expected["scores"] if score >= 0.99]
    assert 0 < len(best) < len(expected["scores"])
    expect(page.locator(SHOWN)).to_have_count(len(best))
    page.locator("#classes label", has_text="ring").locator("input").uncheck()
    assert "ring" not in page.locator(f"{SHOWN} .name").all_inner_texts()
    page.locator("#show-masks").uncheck()
    page.locator("#opacity").fill("0.9")
    page.locator("#color-by").select_option("instance")
    wait_until(lambda: pixels_of(page, "#overlay") != before)
    assert pixels_of(page, "#base") == image
    assert requests == []


def test_pointer_and_keyboard_select_an_instance(page: Page, expected: dict[str, Any]) -> None:
    x1, y1, x2, y2 = expected["boxes"][0]
    stage = page.locator("#stage").bounding_box()
    assert stage
    scale = min(8, (stage["width"] - 2 - 24) / 640, (stage["height"] - 2 - 24) / 480)
    # A point of the ring's mask: its left edge.
    x = 1 + (stage["width"] - 2 - 640 * scale) / 2 + (x1 + 4) * scale
    y = 1 + (stage["height"] - 2 - 480 * scale) / 2 + (y1 + y2) / 2 * scale
    page.mouse.move(stage["x"] + x, stage["y"] + y)
    expect(page.locator("#tip")).to_contain_text(expected["names"][0])
    page.mouse.click(stage["x"] + x, stage["y"] + y)
    selected = page.locator("#instances [aria-selected=true]")
    expect(selected).to_have_count(1)
    details = json.loads(page.locator("#details").inner_text())
    assert details["box"] == expected["boxes"][0]
    assert details["mask"] == expected["masks"][0]
    page.locator("#instances").focus()
    page.keyboard.press("ArrowDown")
    assert json.loads(page.locator("#details").inner_text())["box"] == expected["boxes"][1]
    page.keyboard.press("End")
    expect(page.locator(SHOWN).last).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Escape")
    expect(page.locator("#details")).to_be_hidden()
    assert x2 > x1


def test_zoom_and_pan_by_keyboard_and_wheel(page: Page) -> None:
    fitted = page.locator("#zoom").inner_text()
    page.locator("#stage").focus()
    for key in ("+", "+", "ArrowLeft", "-"):
        page.keyboard.press(key)
    expect(page.locator("#zoom")).not_to_have_text(fitted)
    before = pixels_of(page, "#base")
    page.locator("#stage").hover()
    page.mouse.wheel(0, -400)
    wait_until(lambda: pixels_of(page, "#base") != before)
    page.keyboard.press("1")
    expect(page.locator("#zoom")).to_have_text("100 %")
    page.keyboard.press("0")
    expect(page.locator("#zoom")).to_have_text(fitted)


def test_downloads_are_what_is_on_the_screen(
    page: Page, tmp_path: Path, asgi: AsgiServer, jpeg: Path, http: httpx.Client
) -> None:
    set_threshold(page, 0.9)
    with page.expect_download() as saved:
        page.locator("#save-coco").click()
    found = json.loads(Path(saved.value.path()).read_text())
    expected = http.post(
        f"{asgi.url}/predictions/shapes?format=coco&score_threshold=0.9", content=jpeg.read_bytes()
    ).json()
    assert len(found) == len(expected) > 1
    for one, other in zip(found, expected, strict=True):
        assert one.pop("bbox") == pytest.approx(other.pop("bbox"), abs=0.0011)
        assert one == other
    with page.expect_download() as saved:
        page.locator("#save-overlay").click()
    assert saved.value.suggested_filename == "shapes_01.jpg-detections.png"
    with Image.open(saved.value.path()) as overlay, Image.open(jpeg) as original:
        assert (overlay.format, overlay.size) == ("PNG", original.size)
        drawn = np.asarray(overlay.convert("RGB")) != np.asarray(original.convert("RGB"))
    assert drawn.any(axis=2).sum() > 5000


def test_copied_requests_return_what_is_on_the_screen(
    page: Page, tmp_path: Path, jpeg: Path
) -> None:
    (tmp_path / jpeg.name).write_bytes(jpeg.read_bytes())
    set_threshold(page, 0.9)
    page.locator("#classes label", has_text="ring").locator("input").uncheck()
    shown = page.locator(f"{SHOWN} .name").all_inner_texts()
    assert shown
    curl = subprocess.run(
        ["bash", "-c", page.locator("#snippet").inner_text() + " -s"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        check=True,
    )
    assert json.loads(curl.stdout)["names"] == shown
    page.locator("#snippet-kind").select_option("python")
    python = subprocess.run(
        [sys.executable, "-c", page.locator("#snippet").inner_text()],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert python.stdout.startswith(str(tuple(shown))), python.stderr
    page.locator("#snippet-kind").select_option("boto3")
    boto3 = page.locator("#snippet").inner_text()
    compile(boto3, "snippet", "exec")
    assert "runtime.invoke_endpoint(" in boto3


def test_pasted_and_dropped_images_and_a_gallery(page: Page, png: Path) -> None:
    for event, transfer in (("paste", "clipboardData"), ("drop", "dataTransfer")):
        page.evaluate_handle(
            """([bytes, event, transfer]) => {
                const data = new DataTransfer();
                const content = Uint8Array.from(bytes);
                data.items.add(new File([content], `${event}.png`, {type: "image/png"}));
                const options = {bubbles: true, cancelable: true, [transfer]: data};
                const Event = event === "paste" ? ClipboardEvent : DragEvent;
                document.dispatchEvent(new Event(event, options));
            }""",
            [list(png.read_bytes()), event, transfer],
        )
        expect(page.locator("#facts")).to_contain_text(f"{event}.png")
    expect(page.locator("#gallery [data-state=done]")).to_have_count(3)
    page.locator("#gallery").focus()
    page.keyboard.press("Home")
    expect(page.locator("#facts")).to_contain_text("shapes_01.jpg")


def test_images_are_upright_and_arrays_have_a_plain_background(
    page: Page, samples: list[Path], tmp_path: Path
) -> None:
    rotated = tmp_path / "rotated.jpg"
    with Image.open(samples[0]) as image:
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(rotated, exif=exif)
        image.save(tmp_path / "plain.tif")
    page.set_input_files("#files", [rotated])
    expect(page.locator("#facts")).to_contain_text("480 \u00d7 640 px")
    expect(page.locator("#note")).to_be_hidden()
    page.set_input_files("#files", [tmp_path / "plain.tif"])
    expect(page.locator("#note")).to_contain_text("cannot display the file")
    expect(page.locator("#status")).to_contain_text("instances shown")


def test_invalid_file_has_the_servers_message(page: Page, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
    page.set_input_files("#files", [tmp_path / "broken.jpg"])
    problem = page.locator("#problem")
    expect(problem).to_be_visible()
    assert page.locator("#problem-message").inner_text()
    assert page.locator("#problem-hint").inner_text()
    assert "400" in page.locator("#problem-code").inner_text()
    expect(page.locator("#status")).to_have_text("The request failed.")


@pytest.mark.parametrize(("scheme", "width"), [("light", 360), ("dark", 1280)])
def test_accessibility(
    open_page: Open, asgi: AsgiServer, jpeg: Path, scheme: str, width: int
) -> None:
    size = {"width": width, "height": 800}
    page = open_page(asgi.url, color_scheme=scheme, viewport=size, bypass_csp=True)
    for state in ("empty", "with detections"):
        if state != "empty":
            open_files(page, jpeg)
            page.locator(SHOWN).nth(1).click()
        violations = Axe().run(page).response["violations"]
        serious = [each for each in violations if each["impact"] in ("serious", "critical")]
        assert serious == [], [(each["id"], each["nodes"][0]["html"]) for each in serious]
    overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert overflow <= 0


def test_theme_can_be_chosen(page: Page) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate_handle(f"() => {background}").json_value()
    for label in ("Theme: light", "Theme: dark"):
        page.locator("#theme").click()
        expect(page.locator("#theme")).to_have_attribute("aria-label", label)
    assert page.evaluate_handle(f"() => {background}").json_value() != light
