"""Take the screenshots of docs/playground.md, and time the playground's drawing.

Needs Chromium. `python -m scripts.playground_screenshots`
"""

import io
import json
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.serving.asgi_server import running_asgi_server
from tests.serving.playground.conftest import CHROMIUM
from tests.serving.playground.stub import Stub, large_prediction

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
MODEL = ROOT / "model-store" / "shapes.mar"
SAMPLES = sorted((ROOT / "models" / "shapes" / "samples").iterdir())
DESKTOP, PHONE = (1280, 800), (360, 740)
SHOWN = "#instances [role=option]:not([hidden])"
# Colors of the files, fewer than 300 kB each.
PALETTE = 255
ROUNDS = 31
Scheme = Literal["light", "dark"]
WINDOWS: tuple[tuple[str, tuple[int, int], Scheme], ...] = (
    ("light", DESKTOP, "light"),
    ("dark", DESKTOP, "dark"),
    ("phone", PHONE, "light"),
)
# From the movement of the slider to the end of the frame, with what the browser draws itself.
TIME_FRAMES = """async (rounds) => {
    const slider = document.getElementById("threshold");
    const times = [];
    for (let round = 0; round < rounds; round++) {
        slider.value = String(0.05 + 0.02 * (round % 10));
        const started = performance.now();
        slider.dispatchEvent(new Event("input", {bubbles: true}));
        await new Promise(requestAnimationFrame);
        document.getElementById("overlay").getContext("2d").getImageData(0, 0, 1, 1);
        times.push(performance.now() - started);
    }
    return times;
}"""


def main() -> None:
    """Write the screenshots to docs/images, and print the median time of a frame."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        with tempfile.TemporaryDirectory() as folder:
            with running_asgi_server(MODEL, log_dir=Path(folder)) as server:
                server.wait_until_ready()
                take_detections(browser, server.url, Path(folder))
            take_large(browser, Path(folder))
        browser.close()


def take_detections(browser: Browser, url: str, folder: Path) -> None:
    """The bundled model's detections, and the server's error for a file that is not an image."""
    for name, size, scheme in WINDOWS:
        with opened(browser, url, size, scheme) as page:
            if name == "light":
                save(page, "empty")
            page.set_input_files("#files", SAMPLES[:4])
            expect(page.locator("#gallery [data-state=done]")).to_have_count(4)
            page.locator(SHOWN).nth(2).click()
            page.mouse.move(1, 1)
            page.evaluate("scrollTo(0, 0)")
            save(page, name)
    broken = folder / "notes.jpg"
    broken.write_bytes(b"This is text.")
    with opened(browser, url, DESKTOP, "light") as page:
        page.set_input_files("#files", [broken])
        expect(page.locator("#problem")).to_be_visible()
        save(page, "error")


def take_large(browser: Browser, folder: Path) -> None:
    """300 instances in 12 megapixels."""
    photograph = folder / "photograph.jpg"
    with Image.open(SAMPLES[0]) as sample:
        sample.resize((4000, 3000)).save(photograph)
    with Stub() as stub:
        stub.answer = lambda: (200, large_prediction())
        with opened(browser, stub.url, DESKTOP, "dark") as page:
            page.set_input_files("#files", [photograph])
            expect(page.locator(SHOWN).first).to_be_visible()
            times: list[float] = page.evaluate_handle(TIME_FRAMES, ROUNDS).json_value()
            print(json.dumps({"frame_ms": round(statistics.median(times), 1), "rounds": ROUNDS}))
            page.locator("#threshold").fill("0.5")
            save(page, "300-instances")


@contextmanager
def opened(browser: Browser, url: str, size: tuple[int, int], scheme: Scheme) -> Iterator[Page]:
    """The page in a window of its own."""
    width, height = size
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    page.goto(url)
    expect(page.locator("#about")).not_to_be_empty()
    yield page
    context.close()


def save(page: Page, name: str) -> None:
    """Write docs/images/playground-NAME.png."""
    page.wait_for_timeout(300)
    with Image.open(io.BytesIO(page.screenshot())) as screenshot:
        reduced = screenshot.convert("RGB").quantize(PALETTE)
        reduced.save(IMAGES / f"playground-{name}.png", optimize=True)


if __name__ == "__main__":
    main()
