"""`data check` and `data show` of boxes: every planted defect is found and counted exactly, and boxes are counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

import boxed
import hostile
from boxed import HEIGHT, WIDTH
from msresnet.boxes import Boxes
from msresnet.cli.data_check import CheckConfig
from msresnet.cli.main import main
from msresnet.data.findings import Finding
from msresnet.data.splits import open_data
from msresnet.data.survey import survey
from msresnet.data.verify import Report, report

CONFIG = CheckConfig(workers=1)
SOUND = Boxes.of([[4, 4, 20, 20], [22, 10, 50, 30]], [0, 1])


def written(root: Path, some: dict[str, Boxes]) -> Path:
    """Images with these boxes to learn from, and five more, in which nothing is wrong, to measure with."""
    boxed.coco(root, some)
    boxed.coco(root, dict.fromkeys(("90", "91", "92", "93", "94"), SOUND), "val")
    return root


def checked(root: Path) -> tuple[Report, dict[str, Finding]]:
    """The report on a folder, and its findings by kind."""
    splits = open_data(str(root), CONFIG, unlabelled=True)
    found = report(survey(splits.named(), str(root), CONFIG.workers), splits, CONFIG)
    return found, {finding.kind: finding for finding in found.findings}


def ids(finding: Finding) -> list[str]:
    """Of a finding's images."""
    return [image["id"] for item in finding.items for image in item.get("images", [item])]


def test_sound_boxes_give_no_finding(tmp_path: Path) -> None:
    found, findings = checked(written(tmp_path, dict.fromkeys(("00", "01", "02"), SOUND) | {"03": Boxes.none()}))
    assert findings == {}
    assert found.classes == [{"class": name, "train": 3, "val": 5} for name in boxed.NAMES]
    assert found.sets["train"] == {"images": 4, "unreadable": 0, "boxes": 6}
    facts = {key: found.images[key] for key in ("boxes", "crowds", "small", "medium", "large", "empty", "most")}
    assert facts == {"boxes": 16, "crowds": 0, "small": 16, "medium": 0, "large": 0, "empty": 1, "most": 2}


def test_boxes_that_stand_twice(tmp_path: Path) -> None:
    twice = Boxes.of(np.array([[4, 4, 20, 20], [4, 4, 20, 20.3], [4, 4, 20, 20], [9, 9, 30, 30]]), [0, 0, 0, 1])
    torn = Boxes.of([[4, 4, 20, 20], [4, 4, 20, 20], [9, 9, 30, 30]], [0, 1, 1])
    _, findings = checked(written(tmp_path, {"00": SOUND, "01": twice, "02": torn}))
    assert sorted(findings) == ["copies", "two-classes"]
    assert (findings["copies"].count, ids(findings["copies"])) == (2, ["01.png"] * 2)
    assert (findings["two-classes"].count, ids(findings["two-classes"])) == (2, ["02.png"] * 2)
    assert findings["copies"].items[0]["box"] == [4, 4, 20, 20.3]


def test_boxes_that_nobody_can_see(tmp_path: Path) -> None:
    thin = Boxes.of([[4, 4, 20, 20], [30, 5, 33, 25], [40, 5, 44, 25]], [0, 1, 1])
    _, findings = checked(written(tmp_path, {"00": SOUND, "01": thin}))
    assert list(findings) == ["tiny"]
    assert findings["tiny"].items == [{"split": "train", "id": "01.png", "class": "dog", "box": [30, 5, 33, 25]}]


def test_equal_images_with_other_boxes(tmp_path: Path) -> None:
    some = {"00": SOUND, "01": SOUND, "02": SOUND.chosen(np.array([0])), "03": SOUND}
    root = written(tmp_path, some)
    folder = root / "images" / "train"
    for name in ("01.png", "02.png"):
        (folder / name).write_bytes((folder / "00.png").read_bytes())
    _, findings = checked(root)
    assert sorted(findings) == ["conflicts", "duplicates"]
    assert (findings["conflicts"].count, ids(findings["conflicts"])) == (3, ["00.png", "01.png", "02.png"])


def test_classes_and_whole_images_and_crowded_ones(tmp_path: Path) -> None:
    corners = np.arange(110)[:, None] % [10, 11]  # different places, of which over a hundred are of one class
    many = Boxes.of(np.concatenate([corners, corners + np.array([20, 25])], 1), np.zeros(110))
    whole = Boxes.of([[0, 0, WIDTH, HEIGHT]], [1])
    boxed.coco(tmp_path, {"00": many, "01": whole})
    boxed.coco(tmp_path, {"90": SOUND.chosen(np.array([0]))}, "val")
    _, findings = checked(tmp_path)
    assert {kind: finding.level for kind, finding in findings.items()} == {
        "missing": "warning", "unbalanced": "warning", "whole": "note", "many": "note",
    }  # fmt: skip
    assert findings["missing"].items == [{"split": "val", "class": "dog"}]
    assert findings["unbalanced"].text == "cat has 110 times as many training boxes as dog"
    assert (ids(findings["whole"]), ids(findings["many"])) == (["01.png"], ["00.png"])


def test_A07_an_image_of_another_size_is_unreadable_and_seen_again_when_mended(tmp_path: Path) -> None:
    root = written(tmp_path, dict.fromkeys(("00", "01", "02"), SOUND))
    record = root / "annotations" / "instances_train.json"
    whole = record.read_text()
    content = json.loads(whole)
    content["images"][1]["width"] = WIDTH + 1
    record.write_text(json.dumps(content))
    _, findings = checked(root)
    assert ids(findings["corrupt"]) == ["01.png"]
    assert findings["corrupt"].items[0]["reason"] == f"upright it is {WIDTH}x{HEIGHT}, they say {WIDTH + 1}x{HEIGHT}"
    record.write_text(whole)  # what was read before was read by other annotations
    assert checked(root)[1] == {}
    content["images"][1]["width"] = WIDTH + 2
    record.write_text(json.dumps(content))
    assert ids(checked(root)[1]["corrupt"]) == ["01.png"]


def test_the_command_prints_counts_and_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torn = Boxes.of([[4, 4, 20, 20], [4, 4, 20, 20], [9, 9, 30, 30]], [0, 1, 1])
    root = written(tmp_path / "data", {"00": SOUND, "01": torn})
    assert main(["data", "check", "--data", str(root), "--workers", "1", "--fail-on", "conflicts"]) == 8
    shown = capsys.readouterr()
    text = shown.out + shown.err
    assert "boxes of" in text
    assert "15 boxes (15 small, 0 medium, 0 large), sides about 16 pixels, at most 3 in an image" in " ".join(
        text.split()
    )
    assert "train: 01.png (cat): at 4, 4, 20, 20" in text
    assert main(["data", "check", "--data", str(root), "--workers", "1", "--format", "json"]) == 0
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert printed["sets"]["val"] == {"images": 5, "unreadable": 0, "boxes": 10}


@pytest.mark.parametrize("form", ["coco", "yolo"])
def test_show_counts_boxes_and_draws_them(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boxed.FORMATS[form](tmp_path / "data", dict.fromkeys((f"{i:02d}" for i in range(20)), SOUND))
    for path in (tmp_path / "data" / "images" / "train").iterdir():
        path.write_bytes(hostile.encode(np.zeros((HEIGHT, WIDTH), np.uint8), "PNG"))
    assert main(["data", "show", "--data", str(tmp_path / "data"), "--output", "shown.png", "--count", "2"]) == 0
    shown = capsys.readouterr()
    assert "boxes of" in shown.out + shown.err
    picture = np.asarray(Pillow.open("shown.png").convert("RGB")).astype(int)
    assert (np.ptp(picture, axis=2) > 100).sum() > 200  # lines in colour on images that are black
