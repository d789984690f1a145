"""What comes out: answers can be cut and joined, say what they hold, and cannot hold what makes no sense."""

from __future__ import annotations

import sys
from dataclasses import FrozenInstanceError
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from msresnet import results
from msresnet.boxes import Boxes
from msresnet.errors import ResourceError
from msresnet.results import Detections, Tracks

NAMES = ("cat", "dog <b>")


def found() -> Detections:
    """Three images: two objects, none, one."""
    return Detections(
        ("a.png", "b <i>.png", "c.png"),
        NAMES,
        tuple(np.array(b, np.float32).reshape(-1, 4) for b in ([[1, 2, 30.126, 4], [5, 6, 7, 8]], [], [[0, 0, 9, 9]])),
        tuple(np.array(s, np.float32) for s in ([0.25, 0.9], [], [1.0])),
        tuple(np.array(c, np.int64) for c in ([1, 0], [], [1])),
    )


def changed(**values: Any) -> Detections:
    """The first image alone, with other columns."""
    first = found()[0]
    columns = {"boxes": first.boxes, "scores": first.scores, "classes": first.classes} | values
    return Detections(first.ids, NAMES, **columns)


def test_every_name_is_public_and_exists() -> None:
    assert all(hasattr(results, name) for name in results.__all__)
    assert results.__all__ == sorted(results.__all__, key=lambda name: (not name.isupper(), name))


def test_cut_and_joined() -> None:
    whole = found()
    again = Detections.joined([whole[:1], whole[1:]])
    assert again.to_dict() == whole.to_dict() == [part.to_dict()[0] for part in whole]
    assert whole[-1].ids == ("c.png",)
    with pytest.raises(IndexError):
        whole[3]
    assert whole.counts.tolist() == [2, 0, 1]
    with pytest.raises(FrozenInstanceError):
        whole.ids = ()  # type: ignore[misc]


def test_plain_values_the_surest_first() -> None:
    first, second, _ = found().to_dict()
    assert first == {
        "id": "a.png",
        "count": 2,
        "detections": [
            {"label": "cat", "score": 0.9, "box": [5.0, 6.0, 7.0, 8.0]},
            {"label": "dog <b>", "score": 0.25, "box": [1.0, 2.0, 30.13, 4.0]},
        ],
    }
    assert (second["count"], second["detections"]) == (0, [])
    assert str(found()) == "a.png: 1 cat, 1 dog <b>\nb <i>.png: nothing\nc.png: 1 dog <b>"


def test_only_the_sure_ones() -> None:
    sure = found().above(0.9)
    assert sure.counts.tolist() == [1, 0, 1]
    assert sure.classes[0].tolist() == [0]


def test_notebooks_get_escaped_text() -> None:
    page = found()._repr_html_()
    assert "<b>" not in page
    assert "b &lt;i&gt;.png" in page
    assert "cat 0.9000 at 5, 6, 7, 8" in page
    many = Detections.joined([found()] * 10)
    assert "and 10 more" in many._repr_html_()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"boxes": ()}, "images"), ({"scores": (np.ones(3, np.float32),)}, "shapes"),
        ({"boxes": (np.ones((2, 5), np.float32),)}, "shapes"), ({"boxes": (np.ones((2, 4)),)}, "float64"),
        ({"boxes": (np.array([[5, 1, 2, 3], [0, 0, 1, 1]], np.float32),)}, "x1 <= x2"),
        ({"boxes": (np.array([[np.nan, 1, 2, 3], [0, 0, 1, 1]], np.float32),)}, "finite"),
        ({"scores": (np.array([0.5, 1.5], np.float32),)}, "between 0 and 1"),
        ({"scores": (np.array([0.5, np.nan], np.float32),)}, "between 0 and 1"),
        ({"classes": (np.array([0, 2]),)}, "holds class 2, there are 2"), ({"classes": (np.array([0, -1]),)}, "class"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(values: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        changed(**values)


def tracks() -> Tracks:
    """The same images as frames."""
    return Tracks(found(), (np.array([7, 2]), np.array([], np.int64), np.array([7])))


def test_objects_in_frames() -> None:
    seen = tracks()
    assert seen.objects.tolist() == [2, 7]
    assert [item["track"] for item in seen.to_dict()[0]["tracks"]] == [2, 7]
    assert (seen.ids, seen.class_names, len(seen)) == (found().ids, NAMES, 3)
    assert Tracks.joined([seen[:2], seen[2:]]).to_dict() == seen.to_dict()
    assert "&lt;i&gt;" in seen._repr_html_()
    assert str(seen[0]) == "a.png: 1 cat, 1 dog <b>"


def test_frames_and_pixels_count_from_1_in_mot() -> None:
    assert tracks().to_mot() == (
        "1,2,6.00,7.00,2.00,2.00,0.9,-1,-1,-1\n1,7,2.00,3.00,29.13,2.00,0.25,-1,-1,-1\n"
        "3,7,1.00,1.00,9.00,9.00,1.0,-1,-1,-1\n"
    )


@pytest.mark.parametrize("numbers", [[7, 7], [0, 1], [1], [1.0, 2.0]])
def test_objects_that_cannot_be(numbers: list[int]) -> None:
    with pytest.raises(ValueError, match=r"object"):
        Tracks(found()[0], (np.array(numbers),))


def test_to_and_from_supervision_as_it_documents_them() -> None:
    parts = [
        SimpleNamespace(xyxy=np.array([[1, 2, 3, 4]]), confidence=np.array([0.5]), class_id=np.array([1])),
        SimpleNamespace(xyxy=np.zeros((0, 4)), confidence=np.zeros(0), class_id=np.zeros(0, int)),
    ]
    again = Detections.from_supervision(parts, ("a", "b"), NAMES)
    assert again.to_dict()[0]["detections"] == [{"label": NAMES[1], "score": 0.5, "box": [1.0, 2.0, 3.0, 4.0]}]
    parts[0].confidence = cast(Any, None)
    with pytest.raises(ValueError, match="no confidence"):
        Detections.from_supervision(parts, ("a", "b"), NAMES)


def test_supervision_and_back() -> None:
    pytest.importorskip("supervision")
    there = found().to_supervision()
    assert there[0].data["class_name"].tolist() == [NAMES[1], NAMES[0]]
    assert Detections.from_supervision(there, found().ids, NAMES).to_dict() == found().to_dict()


def test_supervision_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ResourceError, match="supervision") as caught:
        found().to_supervision()
    assert caught.value.hint == "pip install supervision"


def test_a_truth_can_be_shown_as_an_answer() -> None:
    truth = Boxes.of([[0, 0, 9, 9]], [1])
    answer = Detections(("a",), NAMES, (truth.xyxy,), (np.ones(1, np.float32),), (truth.classes,))
    assert answer.agreement(answer).tolist() == [1.0]
