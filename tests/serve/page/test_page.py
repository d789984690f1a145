"""The page in a real browser, at a real server: what it shows, and drawing by mouse, finger and keyboard."""

from __future__ import annotations

import base64
import io
import re
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from browsing import TEXTS, contrast
from drawing import DIGITS, Visit, alone, article, draw, explained, headline, placed, wait_text

SURE = re.compile(r"([\d.]+) % sure")


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
    for scale, across, down in ((1.0, 0.0, 0.0), (0.6, 0.35, 0.05)):
        for stroke in DIGITS[5]:
            first, *rest = placed(page, [(across + scale * x, down + scale * y) for x, y in stroke])
            page.mouse.move(*first)
            page.mouse.down()
            for point in rest:
                page.mouse.move(*point)
            page.mouse.up()
        explained(page)
        shown = article(page).get_by_alt_text("your drawing").get_attribute("src") or ""
        with Image.open(io.BytesIO(base64.b64decode(shown.partition(",")[2]))) as picture:
            found.append(np.asarray(picture.convert("L"), np.float64) / 255)
        assert headline(page).inner_text() == "5"
        page.get_by_role("button", name="Clear").click()
    assert found[0].shape == found[1].shape == (280, 280)
    assert found[0].mean() > 0.1
    assert np.abs(found[0] - found[1]).mean() < 0.01 * found[0].mean()


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
