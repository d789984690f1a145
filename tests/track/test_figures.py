"""Figures of tracks against cases that can be counted by hand, the published formulas, and the layout of MOT15."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from following import mot_lines, moving, tracks, truth, without, write
from msresnet.cli.main import main
from msresnet.data.options import DataOptions
from msresnet.data.splits import read_any
from msresnet.errors import DataError, UsageError
from msresnet.infer import tracking
from msresnet.infer.moving import Frame
from msresnet.infer.tracking import Answer, measure, measure_files, videos_of
from msresnet.track.association import Rules
from msresnet.track.figures import MOST_BOXES, Truth, figures

pytest.importorskip("trackers")
FRAMES = 10
TWO = moving([(0, 0), (100, 100)], [(1, 0), (0, 1)], FRAMES)


def measured(answer: Any, right: Any) -> dict[str, float]:
    return figures({"video": tracks(answer)}, {"video": truth(right)}).total


def test_what_is_perfect_scores_one() -> None:
    found = measured(TWO, TWO)
    assert [found[name] for name in ("hota", "deta", "assa", "mota", "idf1")] == pytest.approx([1] * 5)
    assert (found["id_switches"], found["missed"], found["wrong"]) == (0, 0, 0)


def test_numbers_mean_nothing_by_themselves() -> None:
    renamed = [{n + 40: box for n, box in frame.items()} for frame in TWO]
    assert measured(renamed, TWO) == measured(TWO, TWO)


def test_all_missed_and_nothing_to_be_found() -> None:
    nothing: list[Any] = [{}] * FRAMES
    found = measured(nothing, TWO)
    assert (found["hota"], found["mota"], found["idf1"], found["missed"]) == (0, 0, 0, 2 * FRAMES)
    found = measured(TWO, nothing)
    assert (found["hota"], found["idf1"], found["wrong"]) == (0, 0, 2 * FRAMES)
    found = measured(nothing, nothing)
    assert (found["missed"], found["wrong"]) == (0, 0)


def test_a_track_in_two_halves_as_the_papers_count_it() -> None:
    one = [{1: frame[1]} for frame in TWO]
    halves = [{1 if t < FRAMES // 2 else 2: frame[1]} for t, frame in enumerate(one)]
    found = measured(halves, one)
    # HOTA: all is detected; each detection shares half of its object's with its track, and no other.
    assert found["deta"] == pytest.approx(1)
    assert found["assa"] == pytest.approx(0.5)
    assert found["hota"] == pytest.approx(math.sqrt(0.5))
    assert found["mota"] == pytest.approx(1 - 1 / FRAMES)
    assert found["idf1"] == pytest.approx(0.5)
    assert found["id_switches"] == 1


def test_two_that_are_swapped_half_way() -> None:
    swapped = [frame if t < FRAMES // 2 else {1: frame[2], 2: frame[1]} for t, frame in enumerate(TWO)]
    found = measured(swapped, TWO)
    assert found["assa"] == pytest.approx(1 / 3)  # of 10 and 10 frames that belong together, 5 are shared
    assert found["hota"] == pytest.approx(math.sqrt(1 / 3))
    assert found["mota"] == pytest.approx(1 - 2 / (2 * FRAMES))
    assert found["idf1"] == pytest.approx(0.5)
    assert found["id_switches"] == 2


def test_a_gap_is_missed_and_a_ghost_is_wrong() -> None:
    found = measured(without(TWO, 2, range(2, 5)), TWO)
    assert (found["missed"], found["wrong"], found["fragments"]) == (3, 0, 1)
    found = measured(TWO, without(TWO, 2, range(2, 5)))
    assert (found["missed"], found["wrong"]) == (0, 3)


def test_videos_count_together_by_their_boxes() -> None:
    nothing: list[Any] = [{}] * FRAMES
    both = figures({"a": tracks(TWO), "b": tracks(nothing)}, {"a": truth(TWO), "b": truth([{1: f[1]} for f in TWO])})
    assert both.total["mota"] == pytest.approx(2 / 3)
    assert both.each["a"]["hota"] == pytest.approx(1)
    assert both.each["b"]["hota"] == 0


def test_what_is_to_be_ignored_neither_helps_nor_harms() -> None:
    right = truth(TWO)
    ignored = Truth(right.boxes, [np.where(who == 2, 0, who) for who in right.objects])
    alone = [{1: frame[1]} for frame in TWO]
    for answer in (TWO, alone):
        found = figures({"v": tracks(answer)}, {"v": ignored}).total
        assert (found["missed"], found["wrong"]) == (0, 0)
        assert found["hota"] == pytest.approx(1)


def test_more_boxes_than_can_be_compared_are_refused() -> None:
    many = moving([(10 * number % 3000, number) for number in range(MOST_BOXES + 1)], [(0, 0)] * (MOST_BOXES + 1), 1)
    with pytest.raises(DataError, match="2,001 boxes in one frame"):
        measured(many, moving([(0, 0)], [(0, 0)], 1))
    with pytest.raises(DataError, match="2,001 boxes in one frame"):
        measured(moving([(0, 0)], [(0, 0)], 1), many)


def test_answers_of_another_length_are_no_answers() -> None:
    with pytest.raises(ValueError, match="answers for 9 frames, a truth of 10"):
        figures({"v": tracks(TWO[:-1])}, {"v": truth(TWO)})


def layout(root: Path, text: str, frames: int = FRAMES) -> Path:
    """A video in MOTChallenge's layout with a truth."""
    for number in range(1, frames + 1):
        place = root / "walk" / "img1" / f"{number:06d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Pillow.new("L", (200, 200)).save(place)
    write(root / "walk" / "gt" / "gt.txt", text)
    return root


SWAPPED = [frame if t < FRAMES // 2 else {1: frame[2], 2: frame[1]} for t, frame in enumerate(TWO)]


@pytest.mark.parametrize("tail", [",1,-1,-1,-1", ",1,1,1", ""])
def test_a15_a_truth_of_mot15_scores_what_it_should(tail: str, tmp_path: Path) -> None:
    data = layout(tmp_path / "data", mot_lines(TWO, tail))
    write(tmp_path / "answers" / "walk.txt", mot_lines(SWAPPED, ",-1,-1,-1,-1"))
    source = read_any(str(data), DataOptions(workers=0))[0]["train"]
    _, found = measure_files(source, tmp_path / "answers")
    assert found.total == measured(SWAPPED, TWO)
    assert found.total["mota"] == pytest.approx(0.9)


def test_a15_the_librarys_own_reader_scores_zero_there(tmp_path: Path) -> None:
    """Why it is not used: when this fails, it has been mended."""
    from trackers.eval import evaluate_mot_sequence

    right = write(tmp_path / "gt.txt", mot_lines(TWO, ",1,-1,-1,-1"))
    found: Any = evaluate_mot_sequence(right, right, metrics=["CLEAR", "HOTA", "Identity"])
    assert (found.HOTA.HOTA, found.CLEAR.MOTA, found.Identity.IDF1) == (0, 0, 0)


def test_people_who_leave_the_image_count_as_their_truth_has_them(tmp_path: Path) -> None:
    leaving = moving([(190, 0), (0, 100)], [(1, 0), (1, 0)], FRAMES)
    data = layout(tmp_path / "data", mot_lines(leaving, ",1,1,1"))
    write(tmp_path / "answers" / "walk.txt", mot_lines(leaving, ",0.9,-1,-1,-1"))
    source = read_any(str(data), DataOptions(workers=0))[0]["train"]
    assert measure_files(source, tmp_path / "answers")[1].total["hota"] == pytest.approx(1)


def test_people_who_leave_the_image_count_so_too_where_a_model_follows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model finds them where they are, cut at the edge, and that misses what the truth has outside."""
    leaving = moving([(195, 0), (0, 100)], [(1, 0), (1, 0)], FRAMES)
    data = layout(tmp_path / "data", mot_lines(leaving, ",1,1,1"))
    write(data / "walk" / "seqinfo.ini", "[Sequence]\nimWidth=200\nimHeight=200\n")
    source = read_any(str(data), DataOptions(workers=0))[0]["train"]
    seen = [
        {n: (*box[:2], min(box[2], 200.0), box[3]) for n, box in frame.items() if box[0] < 200} for frame in leaving
    ]
    answers = [Answer(Frame("f", None), tracks([frame])) for frame in seen]
    monkeypatch.setattr(tracking, "follow", lambda *_: answers)
    found, figures_ = measure(source, None, Rules())  # type: ignore[arg-type]
    write(tmp_path / "answers" / "walk.txt", found["walk"].to_mot())
    assert figures_.total["missed"] == FRAMES
    assert measure_files(source, tmp_path / "answers")[1].total == pytest.approx(figures_.total)


def test_a16_tracks_beyond_the_video_name_their_line(tmp_path: Path) -> None:
    data = layout(tmp_path / "data", mot_lines(TWO, ",1,1,1"))
    write(tmp_path / "answers" / "walk.txt", mot_lines([*TWO, TWO[0]], ",1,-1,-1,-1"))
    source = read_any(str(data), DataOptions(workers=0))[0]["train"]
    with pytest.raises(DataError, match=r"longer than the video") as caught:
        measure_files(source, tmp_path / "answers")
    assert "line 21" in str(caught.value)


@pytest.mark.parametrize("line", ["1,1,2,2,5\n", "0,1,2,2,5,5\n", "1,1,2,2,5,5\n1,1,3,3,5,5\n", "a,b,c,d,e,f\n"])
def test_a14_lines_of_answers_that_cannot_be(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = layout(tmp_path / "data", mot_lines(TWO, ",1,1,1"))
    write(tmp_path / "answers" / "walk.txt", line)
    assert main(["track", "--data", str(data), "--answers", str(tmp_path / "answers")]) == 3
    assert "walk.txt, line" in capsys.readouterr().err


def test_files_that_others_wrote_are_measured_by_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = layout(tmp_path / "data", mot_lines(TWO, ",1,1,1"))
    write(tmp_path / "answers" / "walk.txt", mot_lines(SWAPPED, ",1,-1,-1,-1"))
    words = ["track", "--data", str(data), "--answers", str(tmp_path / "answers")]
    assert main(words) == 0
    assert "90.00 %" in capsys.readouterr().out
    assert main([*words, "--fail-under", "mota=0.95"]) == 8
    assert "mota is 0.9000, under 0.95" in capsys.readouterr().err
    assert main([*words, "--fail-under", "speed=1"]) == 2


def test_data_that_does_not_say_who_is_who_measures_nothing() -> None:
    with pytest.raises(UsageError, match="cannot measure tracks"):
        videos_of(read_any("digit-scenes", DataOptions(workers=0))[0]["val"])
