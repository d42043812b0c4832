"""The playground in front of a server with every kind of response."""

import ast
import base64
import io
import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect
from pycocotools import mask as coco_mask

from d2serve.servers.playground.routes import Target
from tests.environment import clean_environment
from tests.polling import wait_until
from tests.serving.playground.conftest import Open
from tests.serving.playground.stub import Answer, Stub, large_prediction, prediction

SHOWN = "#instances [role=option]:not([hidden])"
BYTES = "canvas => canvas.toDataURL()"
MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script>"
HOSTILE = (
    MARKUP,
    "'; alert(3); '",
    '"><svg onload=alert(4)>',
    "{{constructor.constructor('alert(5)')()}}",
    "javascript:alert(6)",
    "\u202egnp.exe\u2028",
)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return saved(tmp_path / "image.png")


def saved(path: Path, size: tuple[int, int] = (64, 48)) -> Path:
    Image.new("RGB", size, "#4a6b8a").save(path, "PNG")
    return path


def opened(open_page: Open, stub: Stub, *files: Path, **options: Any) -> Page:
    page = open_page(stub.url, **options)
    page.set_input_files("#files", list(files))
    return page


def color_at(page: Page, canvas: str, x: float, y: float) -> list[int]:
    """Red, green, blue and alpha at a share of a canvas' size."""
    script = """(canvas, [x, y]) => [...canvas.getContext("2d").getImageData(
        Math.floor(x * canvas.width), Math.floor(y * canvas.height), 1, 1).data]"""
    found: list[int] = page.locator(canvas).evaluate(script, [x, y])
    return found


def point_of(
    page: Page, x: float, y: float, width: int = 64, height: int = 48
) -> tuple[float, float]:
    """Share of the stage's size of a point of the image, which is shown completely."""
    scale, left, top = page.locator("#stage").evaluate(
        """({clientWidth, clientHeight}, [width, height]) => {
            const scale = Math.min(8, (clientWidth - 24) / width, (clientHeight - 24) / height);
            return [scale, clientWidth, clientHeight];
        }""",
        [width, height],
    )
    return 0.5 + (x - width / 2) * scale / left, 0.5 + (y - height / 2) * scale / top


def expect_change(page: Page, canvas: str, before: str) -> None:
    """Wait until a canvas differs from its earlier bytes."""
    page.wait_for_function(
        f"before => ({BYTES})(document.querySelector('{canvas}')) !== before", arg=before
    )


def test_rle_is_decoded_as_pycocotools_does(open_page: Open, stub: Stub) -> None:
    page = open_page(stub.url)
    generator = np.random.default_rng(7)
    masks = [
        generator.random(tuple(generator.integers(1, 40, 2))) < share
        for share in (0, 0.02, 0.3, 0.5, 0.9, 1)
        for _ in range(5)
    ]
    encoded = [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
    script = """async ([texts, heights]) => {
        const rle = await import("/playground/rle.js");
        return texts.map((text, index) => {
            const ends = rle.decode(text);
            const numbers = [...Array(ends.at(-1)).keys()];
            const pixels = numbers.map((pixel) => +rle.contains(ends, pixel));
            const box = rle.bounds(ends, heights[index]);
            const crop = new Uint32Array(box.width * box.height);
            rle.fill(ends, heights[index], box, crop, 1);
            return {pixels, area: rle.area(ends), box, crop: [...crop]};
        });
    }"""
    heights = [mask.shape[0] for mask in masks]
    found = page.evaluate_handle(script, [[each["counts"].decode() for each in encoded], heights])
    for mask, result in zip(masks, found.json_value(), strict=True):
        assert result["pixels"] == mask.T.ravel().astype(int).tolist()
        assert result["area"] == mask.sum()
        box = result["box"]
        rows, columns = (
            slice(box["y"], box["y"] + box["height"]),
            slice(box["x"], box["x"] + box["width"]),
        )
        assert result["crop"] == mask[rows, columns].ravel().astype(int).tolist()
        assert mask.sum() == mask[rows, columns].sum()


def test_texts_of_responses_and_files_never_become_markup(
    open_page: Open, stub: Stub, tmp_path: Path
) -> None:
    """A dialog, a request of another kind or an error of the policy fails the test, too."""
    stub.config = replace(stub.config, models=HOSTILE, target=Target("url", MARKUP))
    info = {"id": 0, "category_id": 4, "name": MARKUP, "isthing": False, "area": 9}
    segments = png_map(np.zeros((48, 64), np.int64), info)
    stub.respond(200, prediction(names=HOSTILE, panoptic=segments))
    files = [saved(tmp_path / f"{text.replace('/', '')}.png") for text in HOSTILE]
    page = opened(open_page, stub, *files)
    page.locator("#threshold").fill("0")
    expect(page.locator(f"{SHOWN} .name")).to_have_text(list(HOSTILE))
    expect(page.locator("#segments .name")).to_have_text(MARKUP)
    page.locator(SHOWN).first.click()
    for kind in ("curl", "python", "boto3"):
        page.locator("#snippet-kind").select_option(kind)
    for text in HOSTILE:
        stub.respond(400, {"error": {"code": text, "message": text, "hint": text}})
        page.set_input_files("#files", files[:1])
        expect(page.locator("#problem-message")).to_have_text(text)
    stub.respond(502, f"<html>{MARKUP}")
    page.set_input_files("#files", files[:1])
    expect(page.locator("#problem-message")).to_have_text("The server responded with status 502.")
    assert page.locator("main script, main svg, #stage img, .panel img").count() == 0


def test_hostile_file_name_is_quoted_for_the_shell_and_python(
    open_page: Open, stub: Stub, tmp_path: Path
) -> None:
    name = "a'b\"c $(touch x) `y` \\ é\u2028.png"
    page = opened(open_page, stub, saved(tmp_path / name))
    expect(page.locator(SHOWN)).to_have_count(2)
    assert f"@{name}" in shlex.split(page.locator("#snippet").inner_text())
    page.locator("#snippet-kind").select_option("boto3")
    code = page.locator("#snippet").inner_text()
    literal = code.split("open(")[1].split(', "rb"')[0]
    assert ast.literal_eval(literal) == name


def test_token_is_asked_for_and_sent(open_page: Open, stub: Stub, image: Path) -> None:
    stub.config = replace(stub.config, token=True)
    error = {"code": "unauthorized", "message": "the token is missing", "hint": "send it"}
    stub.respond(401, {"error": error})
    page = opened(open_page, stub, image)
    expect(page.locator("#problem-message")).to_have_text("the token is missing")
    assert "D2SERVE_TOKEN" in page.locator("#snippet").inner_text()
    expect(page.locator("#token")).to_be_focused()
    stub.respond(200, prediction())
    page.locator("#token").fill("s3cret")
    page.locator("#token").press("Enter")
    expect(page.locator(SHOWN)).to_have_count(2)
    path, headers = stub.received[-1]
    assert headers["Authorization"] == "Bearer s3cret"
    assert "s3cret" not in path
    assert "s3cret" not in page.content()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            (503, {"code": 503, "type": "Unavailable", "message": "no worker"}),
            "no worker",
        ),
        ((200, "<html>sign in"), "The response is not a prediction."),
        ((200, {"status": "Healthy"}), "The response is not a prediction."),
        ((504, "<h1>Gateway Timeout</h1>"), "The server responded with status 504."),
    ],
)
def test_responses_of_other_servers_are_errors_in_plain_words(
    open_page: Open, stub: Stub, image: Path, answer: Any, message: str
) -> None:
    stub.answer = lambda: answer
    page = opened(open_page, stub, image)
    expect(page.locator("#problem-message")).to_contain_text(message)
    stub.respond(200, prediction())
    page.locator("#retry").click()
    expect(page.locator(SHOWN)).to_have_count(2)
    expect(page.locator("#problem")).to_be_hidden()


def test_server_that_has_stopped(open_page: Open, stub: Stub, image: Path) -> None:
    page = open_page(stub.url)
    expect(page.locator("#about")).to_contain_text("this server")
    stub.shutdown()
    stub.server_close()
    page.set_input_files("#files", [image])
    expect(page.locator("#problem-message")).to_have_text("The server did not respond.")


def test_images_of_an_array_and_their_errors(open_page: Open, stub: Stub, tmp_path: Path) -> None:
    error = {"error": {"code": "unprocessable", "message": "NaN", "hint": "replace it"}}
    stub.respond(200, {"predictions": [prediction(), error, prediction(names=())]})
    np.save(tmp_path / "batch.npy", np.zeros((3, 4, 4, 3), np.uint8))
    page = opened(open_page, stub, tmp_path / "batch.npy")
    options = page.locator("#gallery [role=option]")
    expect(options).to_have_count(3)
    options.nth(1).click()
    expect(page.locator("#problem-message")).to_have_text("NaN")
    stub.respond(200, {"predictions": [prediction()] * 2 + [prediction(names=())]})
    page.locator("#retry").click()
    expect(page.locator("#status")).to_contain_text("2 of 2 instances")
    expect(page.locator("#note")).to_be_visible()
    expect(options).to_have_count(3)
    options.nth(2).click()
    expect(page.locator("#status")).to_have_text("Nothing was detected.")


def test_three_hundred_instances_in_12_megapixels(
    open_page: Open, stub: Stub, tmp_path: Path
) -> None:
    """Moving the threshold decodes and colors no mask again."""
    stub.respond(200, large_prediction())
    page = opened(open_page, stub, saved(tmp_path / "large.png", (4000, 3000)))
    expect(page.locator(SHOWN).first).to_be_visible()
    expect(page.locator("#status")).to_contain_text("of 300 instances shown")
    expect(page.locator("#facts")).to_contain_text("4000 \u00d7 3000 px")
    page.evaluate_handle(
        """() => {
            window.painted = 0;
            for (const name of ["putImageData", "createImageData", "fill"]) {
                const original = CanvasRenderingContext2D.prototype[name];
                CanvasRenderingContext2D.prototype[name] = function (...values) {
                    window.painted += 1;
                    return original.apply(this, values);
                };
            }
        }"""
    )
    before = page.locator("#overlay").evaluate(BYTES)
    page.locator("#threshold").fill("0")
    expect(page.locator(SHOWN)).to_have_count(300)
    expect_change(page, "#overlay", before)
    assert page.evaluate("window.painted") == 0
    page.locator("#color-by").select_option("instance")
    assert page.evaluate("window.painted") == 600


def test_memory_of_images_that_are_not_shown_is_released(
    open_page: Open, stub: Stub, tmp_path: Path
) -> None:
    count = """() => {
        window.bitmaps = 0;
        const create = window.createImageBitmap;
        window.createImageBitmap = async (...values) => {
            const bitmap = await create(...values);
            window.bitmaps += 1;
            return bitmap;
        };
        const close = ImageBitmap.prototype.close;
        ImageBitmap.prototype.close = function () {
            window.bitmaps -= 1;
            close.call(this);
        };
    }"""
    page = open_page(stub.url)
    page.evaluate_handle(count)
    page.set_input_files("#files", [saved(tmp_path / f"{index}.png") for index in range(5)])
    expect(page.locator("#gallery [data-state=done]")).to_have_count(5)
    page.locator("#gallery").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#facts")).to_contain_text("4.png")
    expect(page.locator(SHOWN)).to_have_count(2)
    page.wait_for_function("window.bitmaps === 1")


def test_polygons_are_drawn_and_hit(open_page: Open, stub: Stub, image: Path) -> None:
    parts = [[8, 8, 24, 8, 24, 40, 8, 40], [40, 8, 56, 8, 56, 40, 40, 40]]
    answer = prediction(names=("pair",), masks=[parts], boxes=[[8, 8, 56, 40]])
    stub.respond(200, answer)
    page = opened(open_page, stub, image)
    expect(page.locator(SHOWN)).to_have_count(1)
    for name in ("boxes", "labels"):
        page.locator(f"#show-{name}").uncheck()
    drawn = [point_of(page, x, 24) for x in (16, 32, 48)]
    wait_until(
        lambda: (
            [color_at(page, "#overlay", *point)[3] > 0 for point in drawn] == [True, False, True]
        )
    )
    stage = page.locator("#stage").bounding_box()
    assert stage
    for (x, y), text in zip(drawn, ("pair 0.95", "", "pair 0.95"), strict=True):
        page.mouse.move(stage["x"] + x * stage["width"], stage["y"] + y * stage["height"])
        expect(page.locator("#tip")).to_have_text(text)
    with page.expect_download() as download:
        page.locator("#save-coco").click()
    assert json.loads(Path(download.value.path()).read_text())[0]["segmentation"] == parts


def test_model_can_be_changed(open_page: Open, stub: Stub, image: Path) -> None:
    """The request of the first model is cancelled; its response changes nothing."""
    is_received = Event()
    releases = {"late": Event(), "second": Event()}

    def response(name: str) -> Answer:
        is_received.set()
        releases[name].wait(60)
        return 200, prediction(names=(name,))

    stub.config = replace(stub.config, models=("one", "two/2"))
    stub.answer = lambda: response("late")
    page = opened(open_page, stub, image)
    assert is_received.wait(60)
    is_received.clear()
    stub.answer = lambda: response("second")
    page.locator("#model").select_option("two/2")
    assert is_received.wait(60)
    releases["late"].set()
    page.wait_for_timeout(200)
    expect(page.locator("#status")).to_have_text("Detecting …")
    releases["second"].set()
    expect(page.locator(f"{SHOWN} .name")).to_have_text("second")
    assert [path.partition("?")[0] for path, _ in stub.received] == [
        "/predictions/one",
        "/predictions/two%2F2",
    ]
    assert "predictions/two%2F2" in page.locator("#snippet").inner_text()


def test_request_has_only_the_options_that_change_the_result(
    open_page: Open, stub: Stub, image: Path
) -> None:
    """Servers refuse thresholds below the network's own."""
    page = opened(open_page, stub, image)
    expect(page.locator(SHOWN)).to_have_count(2)
    page.locator("#threshold").fill("0.2")
    snippet = page.locator("#snippet")
    expect(snippet).not_to_contain_text("?")
    page.locator("#threshold").fill("0.9")
    page.locator("#show-masks").uncheck()
    expect(snippet).to_contain_text("?score_threshold=0.9&masks=none")
    page.locator("#threshold").fill("0")
    page.locator("#no-classes").click()
    expect(page.locator("#status")).to_contain_text("show more classes")
    page.locator("#all-classes").click()
    expect(page.locator(SHOWN)).to_have_count(2)


def test_files_may_be_opened_before_the_settings_are_received(
    open_page: Open, stub: Stub, image: Path
) -> None:
    page = open_page("about:blank")
    held: list[Route] = []
    page.route("**/config.json", lambda route: held.append(route))
    page.goto(stub.url)
    page.set_input_files("#files", [image])
    expect(page.locator("#status")).to_have_text("Detecting …")
    [route] = held
    route.continue_()
    expect(page.locator(SHOWN)).to_have_count(2)
    assert stub.received[0][0].startswith("/predictions/model?")


def test_file_that_cannot_be_read(open_page: Open, stub: Stub, image: Path) -> None:
    page = open_page(stub.url)
    page.evaluate_handle("() => { File.prototype.arrayBuffer = () => Promise.reject(Error()); }")
    page.set_input_files("#files", [image])
    expect(page.locator("#problem-message")).to_have_text("The browser cannot read this file.")


def png_map(ids: "np.ndarray[Any, Any]", *infos: dict[str, Any]) -> dict[str, Any]:
    colors = np.stack([(ids >> shift) & 255 for shift in (0, 8, 16)], axis=2).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(colors).save(file, "PNG")
    return {"png": base64.b64encode(file.getvalue()).decode(), "segments_info": list(infos)}


def test_segments_are_drawn_and_named(open_page: Open, stub: Stub, image: Path) -> None:
    ids = np.zeros((48, 64), np.int64)
    ids[:, 32:] = 256 + 7
    info = {"id": 263, "category_id": 4, "name": "sky", "isthing": False, "area": 32 * 48}
    stub.respond(200, prediction(names=(), panoptic=png_map(ids, info)))
    page = opened(open_page, stub, image)
    expect(page.locator("#show-segments")).to_be_visible()
    expect(page.locator("#show-keypoints")).to_be_hidden()
    wait_until(lambda: color_at(page, "#overlay", 0.6, 0.5)[3] > 100)
    assert color_at(page, "#overlay", 0.4, 0.5)[3] == 0
    stage = page.locator("#stage").bounding_box()
    assert stage
    page.mouse.move(stage["x"] + 0.6 * stage["width"], stage["y"] + 0.5 * stage["height"])
    expect(page.locator("#tip")).to_have_text("sky")
    expect(page.locator("#segments")).to_have_text("sky50.0 %")
    page.locator("#show-segments").uncheck()
    wait_until(lambda: color_at(page, "#overlay", 0.6, 0.5)[3] == 0)


def test_keypoints_are_drawn_and_exported(open_page: Open, stub: Stub, image: Path) -> None:
    points = [[20 + index, 10.5, 0.9 if index else 0.01] for index in range(17)]
    response = prediction(names=("person",), keypoints=[points], masks=[])
    stub.respond(200, response)
    page = opened(open_page, stub, image)
    expect(page.locator("#show-keypoints")).to_be_visible()
    expect(page.locator("#show-masks")).to_be_hidden()
    with page.expect_download() as saved_file:
        page.locator("#save-coco").click()
    [result] = json.loads(Path(saved_file.value.path()).read_text())
    assert result["keypoints"][3:6] == [20.5, 10, 0.9]
    assert "segmentation" not in result
    page.locator(SHOWN).first.click()
    assert json.loads(page.locator("#details").inner_text())["keypoint"] == points


def test_requests_of_a_page_in_front_of_an_endpoint(
    open_page: Open, stub: Stub, image: Path
) -> None:
    target = Target(
        "sagemaker", endpoint="shapes-1", region="eu-central-1", target_model="a.tar.gz"
    )
    stub.config = replace(stub.config, target=target)
    page = opened(open_page, stub, image)
    expect(page.locator(SHOWN)).to_have_count(2)
    assert stub.received[0][0].startswith("/invocations?")
    page.locator("#threshold").fill("0.9")
    stub.respond(200, prediction())
    for kind, texts in {
        "curl": ["aws sagemaker-runtime invoke-endpoint", "--region 'eu-central-1'", "a.tar.gz"],
        "python": ['Client("shapes-1", region="eu-central-1", target_model="a.tar.gz")'],
        "boto3": [
            'EndpointName="shapes-1"',
            'TargetModel="a.tar.gz"',
            'region_name="eu-central-1"',
        ],
    }.items():
        page.locator("#snippet-kind").select_option(kind)
        code = page.locator("#snippet").inner_text()
        assert [text for text in texts if text not in code] == []
    environment = {
        **clean_environment(),
        "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": stub.url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=image.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout == "['dog 90%', 'cat 90%']\n", run.stderr
    path, headers = stub.received[-1]
    assert path == "/endpoints/shapes-1/invocations"
    assert headers["X-Amzn-SageMaker-Target-Model"] == "a.tar.gz"
    options = json.loads(headers["X-Amzn-SageMaker-Custom-Attributes"])
    assert options == {"score_threshold": 0.9}
