"""The page in a real browser, at a real server: by mouse, finger and keyboard, and with what is no picture."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from browsing import TEXTS, contrast
from drawing import DIGITS, draw, placed
from hostile import encode, random_pixels, truncated_jpeg
from msresnet.data.sources.digits import digits
from serving import Serving, server

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

Visit = Callable[..., "tuple[Page, list[str]]"]
SURE = re.compile(r"([\d.]+) % sure")

HAND_OVER = """([kind, text, name, type]) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  const field = kind === "paste" ? "clipboardData" : "dataTransfer";
  const event = kind === "paste" ? new ClipboardEvent(kind, { [field]: transfer, bubbles: true })
    : new DragEvent(kind, { [field]: transfer, bubbles: true, cancelable: true });
  document.body.dispatchEvent(event);
}"""
"""Pastes or drops a file."""


def picture(index: int = 0) -> bytes:
    """A sample of the digits as a PNG; the first ten are 0 to 9, of which the 5 could be a 9."""
    return encode(digits().images[index][0], "PNG")


def article(page: Page, model: str = "digits") -> Locator:
    return page.get_by_role("article", name=f"Answer of {model}")


def headline(page: Page, model: str = "digits") -> Locator:
    return article(page, model).locator(".headline")


def wait_text(place: Locator, text: str) -> None:
    place.filter(has_text=re.compile(f"^{re.escape(text)}$")).wait_for()


def explained(page: Page, model: str = "digits") -> Locator:
    """The answer, once it is explained."""
    place = article(page, model)
    place.locator("img.heat").wait_for()
    return place


def alone(page: Page, model: str = "digits") -> None:
    """One model, nothing beside it."""
    page.get_by_label("Model").select_option(model)
    page.get_by_label("Beside it").select_option("none")


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_shown_without_complaint(visit: Visit, width: int, scheme: str) -> None:
    page, complaints = visit(width, scheme)
    draw(page, 3)
    explained(page)
    explained(page, "nasty")
    page.get_by_role("list").get_by_role("button").first.wait_for()
    for summary in page.locator("summary").all():
        summary.click()
    assert complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].filter(i => i.src).every(i => i.complete && i.naturalWidth > 0)")
    assert page.evaluate("window.pwned") is None
    texts = page.evaluate(TEXTS)
    assert len(texts) > 40
    assert [(text, ink, paper) for text, ink, paper in texts if contrast(ink, paper) < 4.5] == []


def test_a_screen_reader_finds_names_for_all(visit: Visit) -> None:
    page, _ = visit()
    draw(page, 3)
    explained(page)
    page.locator(".examples img").first.wait_for()
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.evaluate("[...document.images].filter(i => i.src && !i.alt).length") == 0
    nameless = """[...document.querySelectorAll("button, a, summary")].filter((e) => e.checkVisibility()
        && !e.textContent.trim() && ![...e.querySelectorAll("img")].some((i) => i.alt)).length"""
    assert page.evaluate(nameless) == 0
    unlabelled = """[...document.querySelectorAll("input, select, video")]
        .filter((e) => !e.labels?.length && !e.getAttribute("aria-label")).length"""
    assert page.evaluate(unlabelled) == 0
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    levels = page.evaluate("""[...document.querySelectorAll('h1, h2, h3, h4')].filter((e) => e.checkVisibility())
        .map((e) => Number(e.tagName[1]))""")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert page.evaluate("[...document.querySelectorAll('th')].filter(t => !t.scope).length") == 0
    assert "3, " in page.get_by_role("status").inner_text()


def test_a_drawn_digit_is_answered_and_explained(visit: Visit) -> None:
    page, complaints = visit()
    draw(page, 3)
    place = explained(page)
    assert headline(page).inner_text() == "3"
    sure = SURE.search(place.inner_text())
    assert sure is not None
    assert float(sure[1]) > 50
    shares = place.get_by_role("list", name="Share of the details").locator(".value").all_inner_texts()
    assert len(shares) == 2
    assert sum(float(share.split()[0]) for share in shares) == pytest.approx(100, abs=0.2)
    assert "24 \N{MULTIPLICATION SIGN} 24 pixels, grey" in place.inner_text()
    assert "details counted" in page.get_by_role("status").inner_text()
    assert complaints == []


@pytest.mark.slow
def test_all_digits_that_are_drawn_are_read(visit: Visit) -> None:
    page, _ = visit()
    alone(page)
    read = []
    for digit in range(10):
        draw(page, digit)
        explained(page)
        read.append(headline(page).inner_text())
        page.get_by_role("button", name="Clear").click()
        assert headline(page).count() == 0
    assert sum(text == str(digit) for digit, text in enumerate(read)) >= 9, read


def test_where_and_how_large_a_digit_is_drawn_does_not_matter(visit: Visit) -> None:
    page, _ = visit()
    alone(page)
    found = []
    for scale, across, down in ((1.0, 0.0, 0.0), (0.4, 0.5, 0.05)):
        for stroke in DIGITS[5]:
            first, *rest = placed(page, [(across + scale * x, down + scale * y) for x, y in stroke])
            page.mouse.move(*first)
            page.mouse.down()
            for point in rest:
                page.mouse.move(*point)
            page.mouse.up()
        explained(page)
        found.append(float(SURE.search(article(page).inner_text())[1]))  # type: ignore[index]
        assert headline(page).inner_text() == "5"
        page.get_by_role("button", name="Clear").click()
    assert found[0] == pytest.approx(found[1], abs=3)


def test_strokes_are_taken_back(visit: Visit) -> None:
    page, _ = visit()
    undo = page.get_by_role("button", name="Undo")
    assert undo.is_disabled()
    draw(page, 4)  # two strokes
    headline(page).wait_for()
    undo.click()
    assert page.locator("#invitation").is_hidden()
    undo.click()
    assert undo.is_disabled()
    assert page.get_by_text("Draw here").is_visible()
    assert headline(page).count() == 0


def test_a_finger_draws_and_does_not_scroll(visit: Visit) -> None:
    page, _ = visit(390, has_touch=True, is_mobile=True)
    page.locator("#board").scroll_into_view_if_needed()
    before = page.evaluate("scrollY")
    touch = page.context.new_cdp_session(page)
    for stroke in DIGITS[3]:
        points = placed(page, stroke)
        for kind, (x, y) in [("touchStart", points[0]), *(("touchMove", point) for point in points[1:])]:
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    explained(page)
    assert page.evaluate("scrollY") == before
    assert headline(page).inner_text() == "3"
    answer = headline(page).bounding_box()
    assert answer is not None
    assert answer["y"] < 844, "the answer is seen without scrolling"


def test_all_of_it_goes_by_the_keyboard(visit: Visit) -> None:
    page, _ = visit()
    page.locator(".examples img").first.wait_for()
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "board":
            break
    for key in ["ArrowUp"] * 8 + [" "] + ["ArrowDown"] * 16 + [" "]:
        page.keyboard.press(key)
    explained(page)
    assert headline(page).inner_text() == "1"
    page.keyboard.press("Backspace")
    assert headline(page).count() == 0
    page.locator(".examples button").nth(6).focus()
    page.keyboard.press("Enter")
    explained(page)
    wait_text(headline(page), "6")
    other = article(page).locator("button.bar").nth(1)
    other.focus()
    page.keyboard.press("Enter")
    article(page).get_by_role("heading", name=f"What it looked at for {other.get_attribute('data-label')}").wait_for()
    assert other.get_attribute("aria-pressed") == "true"
    heat = article(page).get_by_role("button", name="Heat map")
    heat.press("Space")
    assert heat.get_attribute("aria-pressed") == "false"
    assert article(page).locator("img.heat").is_hidden()


def test_a_file_is_answered_as_the_server_answers_it(visit: Visit, serving: Serving) -> None:
    page, _ = visit()
    expected = serving.post("/predict?model=digits", files={"image": ("x.png", picture(8))}).json()["result"]
    page.get_by_role("button", name="Picture", exact=True).click()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a picture").click()
    chooser.value.set_files([{"name": "eight.png", "mimeType": "image/png", "buffer": picture(8)}])
    explained(page)
    assert headline(page).inner_text() == expected["label"] == "8"
    shown = article(page).get_by_role("list", name="Probabilities").locator(".name").all_inner_texts()
    assert shown == [row["label"] for row in expected["top"]]
    assert page.locator("#preview").get_attribute("alt") == "eight.png"


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_what_is_pasted_or_dropped_is_answered(visit: Visit, kind: str) -> None:
    page, complaints = visit()
    page.evaluate(HAND_OVER, [kind, base64.b64encode(picture(4)).decode(), "four.png", "image/png"])
    explained(page)
    assert headline(page).inner_text() == "4"
    assert complaints == []


def test_the_real_clipboard(visit: Visit) -> None:
    page, _ = visit(permissions=["clipboard-read", "clipboard-write"])
    copy = """async (text) => {
      const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
      await navigator.clipboard.write([new ClipboardItem({ "image/png": new Blob([bytes], { type: "image/png" }) })]);
    }"""
    page.evaluate(copy, base64.b64encode(picture(2)).decode())
    page.keyboard.press("Control+V")
    explained(page)
    assert headline(page).inner_text() == "2"


def test_text_that_is_pasted_is_refused_in_words(visit: Visit) -> None:
    page, _ = visit(permissions=["clipboard-read", "clipboard-write"])
    page.evaluate("navigator.clipboard.writeText('a cat')")
    assert page.locator("#problem").get_attribute("role") == "alert"
    page.keyboard.press("Control+V")
    wait_text(page.locator("#problem"), "What was pasted is no picture.")


def test_the_camera(visit: Visit) -> None:
    page, complaints = visit(permissions=["camera"])
    page.get_by_role("button", name="Camera").click()
    page.get_by_role("button", name="Take the picture").click()
    explained(page)
    assert page.get_by_role("img", name="your photograph").first.is_visible()
    assert page.evaluate("document.getElementById('camera').srcObject") is None
    assert complaints == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"no image at all", "no image of a known format"),
        (b"", "holds no image|is empty"),
        (truncated_jpeg(), "annot decode the image"),
        (encode(random_pixels(700, 700, 3), "PNG"), "too large|more than"),
    ],
    ids=["text", "empty", "truncated", "too-large"],
)
def test_a_hostile_file_gives_a_message_and_harms_nothing(visit: Visit, data: bytes, said: str) -> None:
    page, complaints = visit()
    page.locator("#file").set_input_files([{"name": "x.png", "mimeType": "image/png", "buffer": data}])
    article(page).locator(".problem").wait_for()
    assert re.search(said, article(page).inner_text()), article(page).inner_text()
    assert all("Failed to load resource" in line for line in complaints)  # the browser's own words for a refusal
    page.locator("#file").set_input_files([{"name": "y.png", "mimeType": "image/png", "buffer": picture(6)}])
    explained(page)
    assert headline(page).inner_text() == "6"


def test_two_models_beside_each_other(visit: Visit) -> None:
    page, _ = visit()
    assert page.get_by_role("article").count() == 2
    page.get_by_label("Beside it").select_option("file")
    draw(page, 0)
    headline(page, "file").wait_for()
    explained(page)
    wait_text(page.locator("#verdict"), "Both say 0.")
    assert headline(page, "file").inner_text() == headline(page).inner_text() == "0"
    page.get_by_label("Beside it").select_option("none")
    explained(page)
    assert page.get_by_role("article").count() == 1
    assert page.locator("#verdict").is_hidden()


def test_an_exported_model_answers_without_reasons(visit: Visit) -> None:
    page, complaints = visit()
    alone(page, "file")
    draw(page, 0)
    wait_text(headline(page, "file"), "0")
    page.wait_for_timeout(600)
    assert article(page, "file").locator("button.bar, img.heat").count() == 0
    assert complaints == []


def test_names_are_shown_as_they_are(visit: Visit) -> None:
    page, _ = visit()
    alone(page, "nasty")
    assert page.get_by_role("button", name="Draw").is_hidden()
    page.locator("#file").set_input_files([{"name": "x.png", "mimeType": "image/png", "buffer": picture()}])
    place = explained(page, "nasty")
    assert "<script>window.pwned = 1</script>" in place.inner_text()
    assert page.evaluate("window.pwned") is None


def test_masks_are_laid_over_the_picture_and_boxes_drawn_by_what_the_answer_holds(visit: Visit) -> None:
    page, complaints = visit()
    alone(page, "file")
    found = [
        {"label": "cat", "score": 0.9, "box": [2.0, 1.0, 6.0, 5.0]},
        {"label": "dog", "score": 0.6, "box": [0, 0, 8, 8]},
    ]
    answers = [
        {"id": "image", "count": 2, "detections": found},
        {
            "id": "image",
            "height": 8,
            "width": 8,
            "confidence": 0.9,
            "shares": [{"label": "sky", "share": 0.75}, {"label": "sea", "share": 0.25}],
            "mask": {
                "image": "data:image/png;base64," + base64.b64encode(picture(3)).decode(),
                "colours": {"sky": "#000000", "sea": "#ff8800"},
            },
        },
    ]
    said = iter(answers)

    def answer(route: Any) -> None:
        body = {"model": "file", "version": "1", "result": next(said), "timing": {"total_ms": 1.0, "compute_ms": 0.5}}
        route.fulfill(status=200, content_type="application/json", body=json.dumps(body))

    page.route("**/predict*", answer)
    page.locator("#file").set_input_files([{"name": "x.png", "mimeType": "image/png", "buffer": picture()}])
    wait_text(headline(page, "file"), "2 found")
    view, box = (
        article(page, "file").locator(".view").bounding_box(),
        article(page, "file").locator(".box").first.bounding_box(),
    )
    assert view is not None
    assert box is not None
    assert (box["x"] - view["x"]) / view["width"] == pytest.approx(2 / 8, abs=0.01)
    assert (box["y"] - view["y"]) / view["height"] == pytest.approx(1 / 8, abs=0.01)
    assert box["width"] / view["width"] == pytest.approx(4 / 8, abs=0.01)
    assert "cat 90.0 %" in article(page, "file").inner_text()
    page.locator("#file").set_input_files([{"name": "y.png", "mimeType": "image/png", "buffer": picture(1)}])
    wait_text(headline(page, "file"), "sky")
    mask = article(page, "file").get_by_role("img", name="the class of each pixel")
    assert mask.is_visible()
    article(page, "file").get_by_role("button", name="Mask").click()
    assert mask.is_hidden()
    assert complaints == []


def test_a_server_that_is_gone_is_said_so(visit: Visit) -> None:
    page, _ = visit()
    page.context.set_offline(True)
    draw(page, 1)
    article(page).get_by_text("The server does not answer").wait_for()
    page.context.set_offline(False)
    draw(page, 1)
    explained(page)


@pytest.mark.slow
def test_a_key_is_asked_for_and_kept(visit: Visit, exported: Path, tmp_path: Path) -> None:
    with server(
        tmp_path, "--model", f"file={exported}", "--threads", "1", "--batch-size", "1", MSRESNET_API_KEY="open-sesame"
    ) as locked:
        page, _ = visit(port=locked.port)
        box = page.get_by_label("This server asks for a key")
        box.fill("wrong")
        page.get_by_role("button", name="Use it").click()
        wait_text(page.locator("#key-problem"), "That is not the key.")
        box.fill("open-sesame")
        page.keyboard.press("Enter")
        draw(page, 0)
        wait_text(headline(page, "file"), "0")
        page.reload()
        page.locator("#board").wait_for()
        assert box.is_hidden()
