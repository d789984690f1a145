"""Pages in a real browser: no complaint, nothing from outside; by mouse, by keyboard, without a script."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from browsing import TEXTS, contrast
from msresnet.report.page import Command, Notes, Part, Section, Table, Words, number, page, short
from msresnet.report.story import Story
from stories import NASTY

if TYPE_CHECKING:
    from playwright.sync_api import Page

Show = Callable[..., "tuple[Page, list[str]]"]


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_shown_without_complaint(told: str, show: Show, width: int, scheme: str) -> None:
    opened, complaints = show(told, width, scheme)
    assert complaints == []
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert opened.evaluate("window.pwned") is None
    texts = opened.evaluate(TEXTS)
    assert len(texts) > 200
    assert [text for text, ink, paper in texts if contrast(ink, paper) < 4.5] == []


def test_a_screen_reader_finds_names_for_all(told: str, show: Show) -> None:
    opened, _ = show(told)
    assert opened.evaluate("[...document.images].filter(i => !i.alt).length") == 0
    assert (
        opened.evaluate("""[...document.querySelectorAll("svg")]
        .filter(s => !s.closest("[role=img]")?.getAttribute("aria-label")).length""")
        == 0
    )
    assert opened.evaluate("[...document.querySelectorAll('table')].filter(t => !t.caption.textContent).length") == 0
    assert opened.evaluate("[...document.querySelectorAll('th')].filter(t => !t.scope).length") == 0
    ids = opened.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    levels = opened.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    targets = opened.evaluate("[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))")
    assert targets
    assert all(target[0] == "#" and target[1:] in ids for target in targets)


def test_tables_sort_by_mouse_and_keyboard(story: Story, told: str, show: Show) -> None:
    opened, _ = show(told)
    table = opened.get_by_role("table", name="Figures of each class")
    recalls = {row["class"]: row["recall"] for row in story.evaluation.metrics["per_class"]}
    falling = sorted(recalls, key=lambda name: -recalls[name])

    def order() -> list[str]:
        return table.locator("tbody th").all_inner_texts()

    title = table.get_by_role("columnheader", name="recall")
    title.get_by_role("button").click()
    assert (order(), title.get_attribute("aria-sort")) == (falling, "descending")
    opened.keyboard.press("Enter")
    assert (order(), title.get_attribute("aria-sort")) == (falling[::-1], "ascending")
    table.get_by_role("columnheader", name="class", exact=True).get_by_role("button").press("Space")
    assert order() == opened.evaluate("names => names.sort((a, b) => a.localeCompare(b))", falling)
    assert title.get_attribute("aria-sort") is None


def test_missing_values_stay_last_and_units_are_numbers(show: Show) -> None:
    rows = [("a", "9 s", ""), ("b", "1,000 s", "x"), ("c", "-2.5e3 s", "y"), ("d", "", "z"), ("e", "< 0.001 s", "")]
    opened, _ = show(page("t", "l", [Section("s", "S", [Table("T", ("name", "time", "word"), rows, sort=True)])]))
    for name, expected in [("time", "baecd"), ("time", "ceabd"), ("word", "bcdea"), ("word", "dcbea")]:
        opened.get_by_role("button", name=name).click()
        assert "".join(opened.locator("tbody th").all_inner_texts()) == expected


def test_a_cell_shows_its_pictures_by_mouse_and_keyboard(told: str, show: Show) -> None:
    opened, _ = show(told)
    table = opened.get_by_role("table", name="How often each class")
    shown = opened.locator(".group:not([hidden])")
    assert shown.count() == 1
    cell = table.locator("tbody tr").nth(2).locator("td").nth(2).locator("a")
    cell.click()
    assert shown.count() == 1
    assert shown.first.get_attribute("id") == "cell-2-2"
    assert shown.first.locator("img").count() > 0
    assert opened.evaluate("document.activeElement.id") == "cell-2-2"
    opened.keyboard.press("Escape")
    assert opened.evaluate("document.activeElement.hash") == "#cell-2-2"
    for press, expected in [("ArrowUp", "#cell-1-2"), ("ArrowLeft", "#cell-1-1"), ("ArrowRight", "#cell-1-2")]:
        opened.keyboard.press(press)
        assert opened.evaluate("document.activeElement.hash") == expected
    opened.keyboard.press("Enter")
    assert shown.first.get_attribute("id") == "cell-1-2"
    assert table.locator("a[tabindex='0']").count() == 1


def test_the_matrix_takes_other_orders_and_stays_the_same(told: str, show: Show) -> None:
    opened, _ = show(told)
    read = """() => Object.fromEntries([...document.querySelectorAll("[data-matrix] tbody tr")].flatMap((row) => {
        const titles = [...document.querySelectorAll("[data-matrix] thead th")].map((t) => t.title);
        return [...row.cells].slice(1).map((cell, at) => [row.cells[0].title + " as " + titles[at], cell.textContent]);
    }))"""
    before = opened.evaluate(read)
    names = opened.evaluate("[...document.querySelectorAll('[data-matrix] tbody th')].map(t => t.title)")
    choices = opened.get_by_role("group", name="Order of the classes").get_by_role("button")
    assert choices.all_inner_texts() == ["as given", "most mistakes first", "confused side by side"]
    for place in (1, 2, 0):
        choices.nth(place).click()
        assert opened.evaluate(read) == before
        assert [choices.nth(i).get_attribute("aria-pressed") for i in range(3)].index("true") == place
    assert opened.evaluate("[...document.querySelectorAll('[data-matrix] tbody th')].map(t => t.title)") == names


def test_the_tab_key_goes_from_top_to_bottom_and_shows_where_it_is(told: str, show: Show) -> None:
    opened, _ = show(told)
    opened.evaluate("document.querySelectorAll('*').forEach((e, place) => (e.place = place))")
    places, seen = [], set[str]()
    for _ in range(400):
        opened.keyboard.press("Tab")
        place, name, outlined = opened.evaluate("""() => {
            const e = document.activeElement, style = getComputedStyle(e);
            return [e.place ?? -1, e.tagName, style.outlineStyle !== "none" || style.boxShadow !== "none"];
        }""")
        if place < 0 or name == "BODY":
            break
        places.append(place)
        seen.add(name)
        assert outlined, name
    assert {"A", "BUTTON", "PRE"} <= seen
    assert places == sorted(places)
    assert opened.locator("body").evaluate("b => b.querySelector('a').textContent") == "Skip to the content"


def test_without_a_script_everything_is_visible(told: str, show: Show) -> None:
    opened, complaints = show(told, 390, "dark", script=False)
    assert complaints == []
    groups = opened.locator(".group")
    assert groups.count() > 3
    assert all(groups.nth(i).is_visible() for i in range(groups.count()))
    assert opened.get_by_role("button").count() == 0


def test_print_shows_all_groups(told: str, show: Show) -> None:
    opened, _ = show(told)
    assert len(opened.pdf()) > 10_000
    assert opened.locator(".group[hidden]").count() == 0


def test_what_is_put_in_is_text() -> None:
    parts: list[Part] = [Words(NASTY), Notes([NASTY]), Command(NASTY), Table(NASTY, ("a", NASTY), [(NASTY, NASTY)])]
    text = page(NASTY, NASTY, [Section("s", NASTY, parts)])
    assert "<script>window" not in text
    assert text.count("<script>") == 1
    page("\udcff", "a file name that is not text", []).encode()


@pytest.mark.parametrize(
    ("text", "value"),
    [("1,234", 1234), ("98.5\u202f%", 98.5), ("12.3 M", 12.3), ("+0.50", 0.5), ("-3", -3), ("< 0.001", 0.001)]
    + [(text, None) for text in ("", "four", "4 of 5", "1 to 2", "3x3", "0.1.0", "100% cotton shirts", "nan")],
)
def test_numbers_are_told_from_words(text: str, value: float | None) -> None:
    assert number(text) == value


def test_short_names_are_short() -> None:
    assert short("猫" * 300) == "猫" * 27 + "…"
