"""`msresnet explain` as it is typed: pictures, figures, neighbours, whole sets, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from explained import bundle
from hostile import random_pixels, truncated_jpeg
from msresnet.bundle import Bundle
from msresnet.cli.main import main
from msresnet.data.preprocess import Preprocess
from msresnet.explain.attribution import DEFAULT, METHODS
from msresnet.files import write_text
from msresnet.models.factory import create_network
from msresnet.tasks.classification import ClassificationTask
from msresnet.tasks.segmentation import SegmentationTask
from msresnet.train.fit import to_yaml
from tiny import config, pictures

NAMES = ("lying", "standing", "$\\frac{<b>猫")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, as a training leaves it, and its data."""
    folder = tmp_path_factory.mktemp("runs") / "bars"
    data = pictures(folder.parent / "bars-data")
    settings = config(data, test_fraction=0.25)
    made = bundle(side=12)
    Bundle(made.model, "msresnet_micro", {"num_classes": 3, "in_chans": 1, "img_size": (12, 12)},
           ClassificationTask(NAMES), made.preprocess).save(folder)  # fmt: skip
    write_text(folder / "train.yaml", to_yaml(settings))
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(random_pixels(31, 17, 3)).save(path)
    return path


def explain(run: Path, *words: str | Path) -> int:
    return main(["explain", "--model", str(run), *map(str, words)])


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_everything_about_one_image(run: Path, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(run, photo, "--method", "all", "--scores", "--neighbours", "3", "--format", "json") == 0
    (row,) = told(capsys)
    assert row == json.loads(Path("explanation.json").read_text(encoding="utf-8"))[0]
    assert [m["method"] for m in row["maps"]] == list(METHODS)
    assert all(0 <= m[score] <= 1 for m in row["maps"] for score in ("deletion", "insertion"))
    assert row["controls"].keys() == {"random", "edges"}
    assert [n["distance"] for n in row["neighbours"]] == sorted(n["distance"] for n in row["neighbours"])
    assert {n["label"] for n in row["neighbours"]} <= set(NAMES)
    for operator in {s["operator"] for s in row["scales"]}:
        assert sum(s["share"] for s in row["scales"] if s["operator"] == operator) == pytest.approx(1, abs=1e-3)
    with Image.open("explanation.png") as picture:
        assert picture.width > 1000


def test_lines_for_people(run: Path, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(run, photo, "--scores", "--target", "standing", "--neighbours", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{photo}: ")
    assert "standing by scale: " in lines[0]
    assert [line.split(":")[0] for line in lines[1:]] == [f"  {DEFAULT}", "  random", "  edges", "  nearest"]


def test_a_training_image_is_its_own_neighbour(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = next((run.parent / "bars-data" / "lying").iterdir())
    for index, split in enumerate(("train", "val", "test")):
        code = explain(run, image, "--neighbours", "1", "--split", split, "--format", "json")
        if code == 0:
            near = told(capsys)[0]["neighbours"][0]
            if near["distance"] == 0:
                assert near["label"] == "lying"
                assert Path(near["id"]).name == image.name
                return
        assert index < 2


def test_the_scales_of_a_set(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(run, "--split", "train", "--format", "json", "--output", "set.png") == 0
    found = told(capsys)
    assert found == json.loads(Path("set.json").read_text(encoding="utf-8"))
    assert found["split"] == "train"
    assert sum(found["images"].values()) == found["n"]
    with Image.open("set.png") as picture:
        assert picture.width > 400
    assert explain(run, "--data", run.parent / "bars-data", "--target", "lying") == 0
    out = capsys.readouterr().out
    assert "layer1.0.conv1" in out
    assert "24" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--method", "gradcam"], "grad-cam"),
        (["--method", "grad-cam,oclusion"], "occlusion"),
        (["--method", ""], "unknown method ''"),
        (["--stage", "1"], "only grad-cam looks at a stage"),
        (["--method", "grad-cam", "--stage", "9"], "stages 0 (fine) to 3 (coarse)"),
        (["--target", "standin"], "standing"),
        (["--neighbours", "-1"], "at least 0"),
        (["--neighbours", "1000"], "the set holds"),
        (["--split", "val"], "--neighbours 5"),
        (["--device", "cuda:77"], "--device"),
        (["--output", "a.jpg"], "a.png"),
    ],
)
def test_k01_what_is_refused_about_an_image(
    words: list[str], said: str, run: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(run, photo, *words) == 2
    assert said in capsys.readouterr().err
    assert not list(Path().glob("explanation*"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no image was named"),
        (["--split", "train", "--method", "occlusion"], "--method has no effect on a whole set"),
        (["--split", "train", "--method", "grad-cam", "--stage", "0"], "has no effect on a whole set"),
        (["--split", "test", "--scores"], "--scores has no effect on a whole set"),
        (["--split", "test", "--neighbours", "2"], "--neighbours has no effect on a whole set"),
        (["--split", "test", "--target", "sitting"], "no class 'sitting'"),
    ],
)
def test_k01_what_is_refused_about_a_set(
    words: list[str], said: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(run, *words) == 2
    assert said in capsys.readouterr().err


def test_i03_a_broken_image_ends_it_and_leaves_nothing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.jpg").write_bytes(truncated_jpeg())
    assert explain(run, "broken.jpg") == 3
    assert "broken.jpg" in capsys.readouterr().err
    assert not list(Path().glob("explanation*"))


def test_a_broken_image_among_others_is_named_and_left_out(
    run: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("broken.jpg").write_bytes(truncated_jpeg())
    assert explain(run, photo, "broken.jpg", "--format", "json") == 3
    out, err = capsys.readouterr()
    assert [row["id"] for row in json.loads(out)] == [str(photo)]
    assert "broken.jpg" in err


@pytest.mark.parametrize("name", ["photo.png", "explanation.png"])
def test_an_image_is_not_overwritten_by_its_explanation(
    name: str, run: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(run, photo) == 0
    Path(name).write_bytes(photo.read_bytes())
    before = {path: path.read_bytes() for path in Path().iterdir()}
    assert explain(run, name, "--output", name) == 2
    assert "--output" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


@pytest.mark.parametrize("text", ['{"n": 3}', "[]", "[[1]]", "no JSON", "[" * 100_000])
def test_figures_of_others_stay(text: str, run: Path, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("labels.json").write_text(text)
    for words in ([photo], ["--split", "train"]):
        assert explain(run, *words, "--output", "labels.png") == 2
        assert "labels.json" in capsys.readouterr().err
    assert Path("labels.json").read_text() == text
    assert not Path("labels.png").exists()


def test_figures_of_before_are_replaced(run: Path, photo: Path) -> None:
    assert explain(run, photo, "--output", "same.png") == 0
    assert explain(run, "--split", "train", "--output", "same.png") == 0
    assert explain(run, photo, "--output", "same.png") == 0


def test_the_hottest_pixel_is_one_of_the_file(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    side = 960  # decoded at an eighth of it
    pixels = np.zeros((side, side), np.uint8)
    pixels[700:760, 80:140] = 255
    Image.fromarray(pixels).save("large.jpg")
    assert explain(run, "large.jpg", "--method", "all", "--format", "json") == 0
    (row,) = told(capsys)
    places = [found["hottest_pixel"] for found in row["maps"] if found["hottest_pixel"] is not None]
    assert places
    assert max(max(place.values()) for place in places) > 120
    assert all(0 <= at < side for place in places for at in place.values())


def test_where_nothing_speaks_for_the_class_there_is_no_hottest_pixel(
    photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = bundle(side=12)
    for parameter in made.model.parameters():
        parameter.data.zero_()
    Bundle(made.model, "msresnet_micro", {"num_classes": 3, "in_chans": 1, "img_size": (12, 12)},
           ClassificationTask(NAMES), made.preprocess).save(Path("blank"))  # fmt: skip
    assert explain(Path("blank"), photo, "--format", "json") == 0
    assert told(capsys)[0]["maps"][0]["hottest_pixel"] is None


def test_a_run_that_skipped_bad_images_is_explained_so(run: Path, photo: Path, tmp_path: Path) -> None:
    data = pictures(tmp_path / "ruined")
    for folder in data.iterdir():
        (folder / "bad.png").write_bytes(truncated_jpeg())
    lenient = Path(shutil.copytree(run, tmp_path / "lenient"))
    write_text(lenient / "train.yaml", to_yaml(config(data, test_fraction=0.25, on_bad="skip")))
    assert explain(lenient, photo, "--neighbours", "1") == 0
    assert explain(lenient, "--split", "train") == 0


def test_many_neighbours_have_several_bands(run: Path, photo: Path) -> None:
    assert explain(run, photo, "--neighbours", "2", "--output", "few.png") == 0
    assert explain(run, photo, "--neighbours", "12", "--output", "many.png") == 0
    with Image.open("few.png") as few, Image.open("many.png") as many:
        assert many.width == few.width
        assert many.height > few.height + 100


def test_i21_names_that_no_font_and_no_encoding_has(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(b"caf\xe9 $x_$\n.png".decode("utf-8", "surrogateescape"))
    Image.fromarray(random_pixels(9, 9)).save(path, format="png")
    assert explain(run, path, "--target", NAMES[2]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_too_many_images_for_a_picture_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("many").mkdir()
    for number in range(51):
        Image.fromarray(random_pixels(4, 4)).save(f"many/{number}.png")
    assert explain(run, "many") == 2
    assert "more than 50 images" in capsys.readouterr().err


def test_a_network_of_one_scale_has_no_table(run: Path, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = bundle("resnet18", 12, stem="small")
    Bundle(made.model, "resnet18", {"num_classes": 3, "in_chans": 1, "img_size": (12, 12), "stem": "small"},
           ClassificationTask(NAMES), made.preprocess).save(Path("plain"))  # fmt: skip
    assert explain(Path("plain"), "--data", run.parent / "bars-data") == 2
    assert "no operator whose scales can be told apart" in capsys.readouterr().err
    assert explain(Path("plain"), photo) == 0
    assert "no operator whose scales" in capsys.readouterr().out
    assert explain(Path("plain"), photo, "--neighbours", "1") == 2
    assert "--data" in capsys.readouterr().err


def test_c08_weights_that_overflow_are_refused(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = bundle(side=12)
    for parameter in made.model.parameters():
        parameter.data.fill_(float(np.finfo(np.float32).max))
    Bundle(made.model, "msresnet_micro", {"num_classes": 3, "in_chans": 1, "img_size": (12, 12)},
           ClassificationTask(NAMES), made.preprocess).save(Path("huge"))  # fmt: skip
    assert explain(Path("huge"), photo) == 4
    assert "finite" in capsys.readouterr().err


def test_a_model_of_masks_is_refused(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = {"num_classes": 2, "in_chans": 1, "img_size": (16, 16)}
    network = create_network("pyramid", "msresnet_micro", **arguments).eval()
    task = SegmentationTask(["ground", "ink"])
    Bundle(network, "msresnet_micro", arguments, task, Preprocess((16, 16), 1)).save(Path("masks"))
    assert explain(Path("masks"), photo) == 2
    assert "masks is for segmentation" in capsys.readouterr().err
