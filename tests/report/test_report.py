"""The report of a model, and the pictures of the command line."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from msresnet.bundle import bundle_of
from msresnet.cli.main import main
from msresnet.data.sets import Decoded
from msresnet.explain.attribution import DEFAULT, MOST_STEPS
from msresnet.report import html, looks
from msresnet.report.answered import Answered
from msresnet.report.confusions import MOST_BYTES, confusions
from msresnet.report.html import render
from msresnet.report.mistakes import doubtful, worst
from msresnet.report.page import Groups, Matrix
from msresnet.report.story import Story, picture
from msresnet.results import Classification
from stories import HISTORY, NASTY, story_of

HOSTILE = [
    NASTY,
    "</script><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "$\\frac{$",
    "{{ 7 * 7 }}",
    "n" * 255,
    "猫" * 85,
    "-->",
]


def answered_of(story: Story) -> Answered:
    assert isinstance(story.evaluation.predictions, Classification)
    return Answered(story, story.evaluation.predictions)


def matrix_of(story: Story) -> tuple[Matrix, Groups]:
    parts = confusions(answered_of(story)).parts
    return next(p for p in parts if isinstance(p, Matrix)), next(p for p in parts if isinstance(p, Groups))


def test_the_figures_are_those_of_the_evaluation(story: Story, told: str) -> None:
    assert f"{100 * story.evaluation.metrics['top1']:.2f}" in told
    wrong = int((~answered_of(story).correct).sum())
    assert f"of {wrong} mistakes" in told or f"All {wrong} mistakes" in told
    titles = [
        "How good it is",
        "How it learnt",
        "What it confuses",
        "Class by class",
        "Where it fails, where it doubts",
    ]
    titles += ["What to check in the data", "How far to trust it", "What size does", "What it looks at"]
    titles += ["At which scale it sees", "How this came about"]
    assert [title for title in titles if f">{title}</h2>" not in told] == []


def test_one_report_from_one_story(story: Story, told: str) -> None:
    assert render(story) == told


def test_every_image_is_a_picture_in_the_file(told: str) -> None:
    sources = re.findall(r'<img src="([^"]*)"', told)
    assert len(sources) > 20
    for source in sources:
        kind, data = re.fullmatch(r"data:image/(png|jpeg);base64,(.*)", source).groups()  # type: ignore[union-attr]
        assert base64.b64decode(data).startswith({"png": b"\x89PNG", "jpeg": b"\xff\xd8"}[kind])
    assert not re.search(r"(src|href|url)[=(](?!['\"]?(data:|#))", re.sub(r"<script>.*</script>", "", told, flags=re.S))


def test_the_matrix_counts_and_its_groups_hold_their_images(story: Story) -> None:
    matrix, groups = matrix_of(story)
    answers, targets = answered_of(story).answers, story.evaluation.targets
    for truth, row in enumerate(matrix.rows):
        for answer, cell in enumerate(row):
            assert cell.count == int(((targets == truth) & (answers == answer)).sum())
            assert bool(cell.group) == bool(cell.count)
    for group in groups.groups:
        truth, answer = map(int, group.id.split("-")[1:])
        for card in group.cards.cards:
            index = story.evaluation.predictions.ids.index(card.id)
            assert (targets[index], answers[index]) == (truth, answer)


def test_the_worst_are_wrong_and_sure_and_the_doubtful_undecided(story: Story) -> None:
    answered = answered_of(story)
    probabilities = np.sort(answered.results.probabilities, axis=1)
    wrong = worst(answered)
    assert not answered.correct[wrong].any()
    assert answered.confidences[wrong[0]] == answered.confidences[~answered.correct].max()
    assert (np.diff(answered.confidences[wrong]) <= 0).all()
    margins = probabilities[:, -1] - probabilities[:, -2]
    assert margins[doubtful(answered)].tolist() == sorted(margins)[:12]


def test_a_task_without_sections_of_its_own_shows_its_tables(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "TELLERS", {})
    text = html.render(story)
    assert "More figures" in text
    assert "What it confuses" not in text
    assert "How this came about" in text


def test_no_mistake_and_no_history_are_told(story: Story) -> None:
    targets = torch.arange(12) % 3
    text = render(story_of(["a", "b", "c"], targets, 9 * torch.eye(3)[targets]))
    assert "No mistake on this set" in text
    assert "How it learnt" not in text
    assert "contradicts no label" in text


def test_F_one_image_and_one_class_and_classes_that_are_absent() -> None:
    one = render(story_of(["a", "b"], torch.tensor([1]), torch.tensor([[3.0, 1.0]])))
    assert "The one mistake" in one
    assert "1 of the classes have no image" in one
    lone = render(story_of(["only"], torch.zeros(4, dtype=torch.int64), torch.zeros(4, 1), history=HISTORY[:1]))
    assert "No mistake" in lone
    absent = render(story_of([f"c{i}" for i in range(9)], torch.full((5,), 4), torch.zeros(5, 9)))
    assert "8 of the classes have no image" in absent


def test_names_and_ids_that_would_run_or_break_are_texts() -> None:
    targets = torch.arange(40) % len(HOSTILE)
    outputs = torch.randn(40, len(HOSTILE), generator=torch.Generator().manual_seed(0))
    ids = [f"{HOSTILE[i % len(HOSTILE)]} {i} \udcff\n" for i in range(40)]
    text = render(story_of(HOSTILE, targets, outputs, ids=ids, history=HISTORY))
    assert text.count("<script") == 1
    assert "<img src=x" not in text
    assert '"" onmouseover' not in text
    assert 'title="&#34; onmouseover=&#34;' in text
    assert "{{ 7 * 7 }}" in text
    text.encode()


def test_a_thousand_classes_of_long_names_stay_small() -> None:
    rng = torch.Generator().manual_seed(0)
    names = [f"{i:04d}{'n' * 251}" for i in range(1000)]
    targets = torch.randint(0, 1000, (1500,), generator=rng)
    story = story_of(names, targets, torch.randn(1500, 1000, generator=rng))
    matrix, _ = matrix_of(story)
    assert len(matrix.rows) == 30
    text = render(story)
    assert "970 others are left out" in text
    assert "The most frequent mix-ups" in text
    assert len(text.encode()) < 3_000_000


def test_pictures_of_photographs_are_bounded() -> None:
    rng = torch.Generator().manual_seed(0)
    targets = torch.arange(300) % 30
    images = torch.randint(0, 256, (300, 3, 224, 224), dtype=torch.uint8, generator=rng)
    story = story_of([f"c{i}" for i in range(30)], targets, torch.randn(300, 30, generator=rng), images=images)
    _, groups = matrix_of(story)
    sources = [card.pictures[0].source for group in groups.groups for card in group.cards.cards]
    assert len(sources) > 20
    assert MOST_BYTES / 2 < sum(map(len, sources)) <= MOST_BYTES
    made = picture(images[0].permute(1, 2, 0).numpy(), "noise")
    assert (made.width, made.height, made.coarse) == (160, 160, False)
    assert picture(images[0, :, :28, :28].permute(1, 2, 0).numpy(), "tiny").coarse


def test_explaining_costs_no_more_than_it_may(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [(index, 0) for index in range(20)]
    found, method = looks.explained(story, wanted)
    assert (list(found), method) == (list(range(20)), DEFAULT)
    each = looks.PASSES * story.trained.macs
    monkeypatch.setattr(looks, "MOST_MACS", 5.5 * each * MOST_STEPS)
    found, method = looks.explained(story, wanted)
    assert (list(found), method) == (list(range(5)), DEFAULT)
    monkeypatch.setattr(looks, "MOST_MACS", 7.5 * each)
    found, method = looks.explained(story, wanted)
    assert (list(found), method) == (list(range(7)), looks.CHEAPEST)


def test_what_is_there_twice_is_found_with_its_labels() -> None:
    rng = torch.Generator().manual_seed(0)
    images = torch.nn.functional.interpolate(torch.rand(30, 1, 5, 5, generator=rng), (32, 32), mode="bicubic")
    images = (images.clamp(0, 1) * 255).to(torch.uint8)
    images[7], images[9] = images[3], images[4]
    images[20] = (images[5].float() * 0.9).to(torch.uint8)
    targets = torch.arange(30) % 2
    targets[9] = targets[4]
    targets[20] = targets[5]
    targets[7] = 1 - targets[3]
    text = render(story_of(["a", "b"], targets, 5 * torch.eye(2)[targets], images=images))
    assert "4 equal images in 2 groups and 2 nearly equal images in 1 group" in text
    assert "1 of these groups bear different labels" in text
    assert "image 3, image 7" in text


def test_a_label_made_wrong_is_suspect() -> None:
    targets = torch.arange(40) % 2
    given = targets.clone()
    given[6] = 1 - given[6]
    noise = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    text = render(story_of(["a", "b"], given, 6 * torch.eye(2)[targets] + noise))
    assert "1 image for which the model is surer of another class" in text
    section = text[text.index("Labels that may be wrong") : text.index("Images that are there twice")]
    assert re.findall(r'class="id" title="([^"]*)"', section) == ["image 6"]


def test_a_set_that_lost_images_shows_the_right_ones(story: Story) -> None:
    data = story.data
    assert isinstance(data, Decoded)
    more = Decoded(
        torch.cat([data.images[:1] * 0, data.images]),
        torch.cat([data.targets[:1], data.targets]),
        ["lost", *data.ids],
    )
    other = Story(story.trained, story.evaluation, more, [], [], {}, "")
    assert all((other.image(i) == story.image(i)).all() for i in range(len(data)))


def test_explain_writes_a_picture_and_figures(story: Story, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle_of(story.trained, "this").save(tmp_path / "model")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30)).astype(np.uint8)).save(tmp_path / "x.png")
    assert main(["explain", str(tmp_path / "x.png"), "--model", str(tmp_path / "model"), "--format", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row == json.loads(Path("explanation.json").read_text(encoding="utf-8"))[0]
    assert sum(s["share"] for s in row["scales"] if s["operator"] == "layer1.0.conv1") == pytest.approx(1, abs=1e-3)
    with Image.open("explanation.png") as picture:
        assert picture.width > 800
    assert main(["explain", str(tmp_path / "x.png"), "--model", str(tmp_path / "model"), "--target", "cta"]) == 2
    assert "cat" in capsys.readouterr().err


def test_data_show_draws_before_and_after(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", "threshold=otsu", "binary=true", "output=look.png", "count=6"]) == 0
    out = capsys.readouterr().out
    assert "1,797" in out or "all" in out
    with Image.open("look.png") as picture:
        assert picture.format == "PNG"


def test_data_show_takes_a_table_without_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savetxt(tmp_path / "pixels.csv", np.arange(48).reshape(3, 16) * 5, fmt="%d", delimiter=",")
    assert main(["data", "show", "--data", "pixels.csv"]) == 0
    assert "no labels" in capsys.readouterr().err
    assert Path("data.png").is_file()
