"""Pictures that are given to the page: files, the clipboard, the camera, what is not a picture; and other models."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from drawing import Visit, alone, article, draw, explained, give, headline, picture, wait_text
from hostile import encode, random_pixels, truncated_jpeg
from serving import Serving, server

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


def test_a_file_is_answered_as_the_server_answers_it(visit: Visit, serving: Serving) -> None:
    page, _ = visit()
    expected = serving.post("/predict?model=digits", files={"image": ("x.png", picture(8))}).json()["result"]
    page.get_by_role("button", name="Picture", exact=True).click()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a picture").click()
    chooser.value.set_files({"name": "eight.png", "mimeType": "image/png", "buffer": picture(8)})
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
    wait_text(page.locator("#problem"), "What was pasted is not a picture.")


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
    give(page, data)
    article(page).locator(".problem").wait_for()
    assert re.search(said, article(page).inner_text()), article(page).inner_text()
    assert all("Failed to load resource" in line for line in complaints)  # the browser's own words for a refusal
    give(page, picture(6))
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
    give(page, picture())
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
    give(page, picture())
    wait_text(headline(page, "file"), "2 found")
    view, box = (  # the surest box is the last that is drawn, so it lies on top
        article(page, "file").locator(".view").bounding_box(),
        article(page, "file").locator(".box").last.bounding_box(),
    )
    assert view is not None
    assert box is not None
    assert (box["x"] - view["x"]) / view["width"] == pytest.approx(2 / 8, abs=0.01)
    assert (box["y"] - view["y"]) / view["height"] == pytest.approx(1 / 8, abs=0.01)
    assert box["width"] / view["width"] == pytest.approx(4 / 8, abs=0.01)
    assert "cat 90.0 %" in article(page, "file").inner_text()
    give(page, picture(1))
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
        page.locator(".examples img").first.wait_for()
        draw(page, 0)
        wait_text(headline(page, "file"), "0")
        page.reload()
        page.locator("#board").wait_for()
        assert box.is_hidden()
