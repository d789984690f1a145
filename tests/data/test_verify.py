"""`data check`: every planted defect is found and counted exactly, and no bad file stops it."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

import hostile
from msresnet.cli.data_check import CheckConfig
from msresnet.cli.data_check import main as data_check
from msresnet.cli.main import Common
from msresnet.data.findings import Finding
from msresnet.data.isolation import Bounds
from msresnet.data.loaders import decode_sets
from msresnet.data.preprocess import Preprocess, choose
from msresnet.data.sample import ArraySource, Image, Source
from msresnet.data.splits import Splits, open_data
from msresnet.data.survey import Survey, survey
from msresnet.data.verify import Report, report
from msresnet.errors import DataError, QualityGateError, UsageError

CONFIG = CheckConfig(workers=2)


def checked(root: Path, config: CheckConfig = CONFIG) -> Report:
    """The report on a folder."""
    splits = open_data(str(root), config, unlabelled=True)
    return report(survey(splits.named(), str(root), config.workers), splits, config, config.on_bad)


def findings(found: Report) -> dict[str, Finding]:
    """By kind; no kind comes twice."""
    by_kind = {finding.kind: finding for finding in found.findings}
    assert len(by_kind) == len(found.findings)
    return by_kind


def names(finding: Finding) -> list[str]:
    """set/id of a finding's images."""
    items = [image for item in finding.items for image in item.get("images", [item])]
    return [f"{item['split']}/{item['id']}" for item in items]


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Three sets of two classes, in which nothing is wrong."""
    for number, split in enumerate(("train", "val", "test")):
        hostile.write_classes(tmp_path / "data" / split, {"cat": 8, "dog": 8}, side=32, seed=10**7 * number)
    return tmp_path / "data"


def test_sound_data_gives_no_finding(sound: Path) -> None:
    found = checked(sound)
    assert found.findings == []
    assert found.classes == [{"class": name, "train": 8, "val": 8, "test": 8} for name in ("cat", "dog")]
    assert found.sets == {name: {"images": 16, "unreadable": 0} for name in ("train", "val", "test")}
    assert found.images == {
        "readable": 48, "colour": 0, "size": {key: [32, 32] for key in ("smallest", "median", "largest")}
    }  # fmt: skip


@pytest.mark.timeout(60)
def test_I01_to_I20_unreadable_files_are_counted_and_named_with_their_reasons(sound: Path) -> None:
    cats = sound / "train" / "cat"
    bad: dict[str, bytes] = {
        "I01.jpg": b"", "I02.png": hostile.random_pixels(500).tobytes(), "I03.jpg": hostile.truncated_jpeg(),
        "I04.png": hostile.png_with_a_bad_checksum(), "I05.png": hostile.png_claiming(50_000, 50_000),
        "I06.gif": hostile.gif_bomb(), "I07.bmp": hostile.bmp_with_an_absurd_width(), "D20.jpg": hostile.LFS_POINTER,
        **{f"I09{name}.png": data for name, data in hostile.foreign_formats().items()},
    }  # fmt: skip
    for name, data in bad.items():
        (cats / name).write_bytes(data)
    os.mkfifo(cats / "I20.jpg")
    (cats / "I19a.jpg").symlink_to(cats / "absent")
    (cats / "I19b.jpg").symlink_to(cats / "I19b.jpg")
    good = {"I08.jpg": ("WEBP", hostile.random_pixels(32, 32, 3)), "I11.tif": ("PNG", hostile.random_pixels(32, 32))}
    for name, (form, pixels) in good.items():
        (cats / name).write_bytes(hostile.encode(pixels, form))

    finding = findings(checked(sound, CheckConfig(on_bad="skip")))["corrupt"]
    expected = {f"train/cat/{name}" for name in [*bad, "I20.jpg", "I19a.jpg", "I19b.jpg"]}
    assert set(names(finding)) == expected
    assert finding.count == len(finding.items) == len(expected)
    assert finding.level == "warning"
    reasons = {item["id"]: item["reason"] for item in finding.items}
    assert all(reasons.values())
    assert "Git-LFS" in reasons["cat/D20.jpg"]
    assert "pipe" in reasons["cat/I20.jpg"]
    assert "2500000000 pixels" in reasons["cat/I05.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_I18_a_file_without_permission(sound: Path) -> None:
    (sound / "val" / "dog" / "0000.png").chmod(0)
    finding = findings(checked(sound))["corrupt"]
    assert names(finding) == ["val/dog/0000.png"]
    assert finding.items[0]["reason"] == "Permission denied"


def training_takes(root: Path, config: CheckConfig) -> bool:
    """Whether training would take the data, by its own reader."""
    splits = open_data(str(root), config)
    try:
        decode_sets(splits.named(), Preprocess((8, 8), 1), 0, config.on_bad)
    except DataError:
        return False
    return True


# (unreadable of 150 training images, of 50 for testing; policy)
POLICIES = [
    (0, 0, None), (1, 0, None), (2, 0, None), (3, 0, None), (0, 1, None), (0, 2, None), (1, 1, None), (2, 1, None),
    (0, 0, "fail"), (1, 0, "fail"), (0, 1, "fail"), (150, 0, "skip"), (100, 50, "skip"), (75, 0, "skip"),
    (0, 2, "skip"), (75, 0, None), (0, 50, "skip"), (40, 10, "skip"),
]  # fmt: skip


@pytest.mark.parametrize(("train", "test", "on_bad"), POLICIES)
def test_F12_an_error_is_what_training_refuses(train: int, test: int, on_bad: Any, tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number, (split, count, bad) in enumerate((("train", 75, train), ("test", 25, test))):
        hostile.write_classes(root / split, {"cat": count, "dog": count}, seed=10**7 * number)
        hostile.spoil(root / split, [f"{('cat', 'dog')[i // count]}/{i % count:04d}.png" for i in range(bad)])
    config = CheckConfig(on_bad=on_bad, val_fraction=0.0)
    found = checked(root, config)
    refused = any(finding.level == "error" for finding in found.findings)
    assert refused != training_takes(root, config)
    counts = {name: c["unreadable"] for name, c in found.sets.items()}
    assert counts == {"train": train, "test": test}
    corrupt = findings(found).get("corrupt")
    assert (corrupt.count if corrupt else 0) == train + test


def test_D05_equal_images_across_sets_within_one_and_of_two_classes(sound: Path) -> None:
    def copy(source: str, target: str) -> None:
        shutil.copy(sound / source, sound / target)

    copy("train/cat/0000.png", "test/cat/leak.png")
    copy("train/cat/0000.png", "test/cat/leak2.png")
    copy("train/cat/0001.png", "val/cat/leak.png")
    copy("val/dog/0002.png", "test/dog/leak.png")
    copy("train/dog/0003.png", "train/dog/copy.png")
    copy("train/dog/0004.png", "train/cat/wrong.png")
    # The same picture in another file.
    Pillow.open(sound / "train/dog/0005.png").convert("RGB").save(sound / "test/dog/other.bmp")
    found = findings(checked(sound))
    assert found.keys() == {"leaks", "duplicates", "conflicts"}

    leaks = found["leaks"]
    assert leaks.count == 5
    assert leaks.text == (
        "train also holds 1 of 17 val images and 3 of 20 test images; val also holds 1 of 20 test images"
    )
    assert [names(Finding("", "note", 0, "", "", [group])) for group in leaks.items] == [
        ["train/cat/0000.png", "test/cat/leak.png", "test/cat/leak2.png"],
        ["train/cat/0001.png", "val/cat/leak.png"],
        ["train/dog/0005.png", "test/dog/other.bmp"],
        ["val/dog/0002.png", "test/dog/leak.png"],
    ]
    assert found["duplicates"].count == 3
    assert set(names(found["duplicates"])) == {
        "train/cat/0000.png", "test/cat/leak.png", "test/cat/leak2.png", "train/dog/0003.png", "train/dog/copy.png",
        "train/cat/wrong.png", "train/dog/0004.png",
    }  # fmt: skip
    assert names(found["conflicts"]) == ["train/cat/wrong.png", "train/dog/0004.png"]
    assert all(finding.level == "warning" for finding in found.values())


def picture(seed: int, side: int = 64) -> Pillow.Image:
    """Soft coloured shapes."""
    return Pillow.fromarray(hostile.random_pixels(5, 5, 3, seed=seed)).resize((side, side), Pillow.Resampling.BICUBIC)


def write_pictures(root: Path, count: int, side: int = 64) -> Path:
    """A training folder of two classes of pictures in colour."""
    for number, label in enumerate(("cat", "dog")):
        (root / label).mkdir(parents=True)
        for index in range(count):
            picture(1_000 * number + index, side).save(root / label / f"{index:02d}.png")
    return root


ALONE = CheckConfig(workers=2, val_fraction=0.0, test_fraction=0.0)


def test_pictures_that_are_nearly_equal_empty_small_wide_or_grey(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "data", 20)
    picture(3).save(root / "dog" / "again.jpg", quality=60)
    Pillow.new("RGB", (64, 64), "red").save(root / "cat" / "red.png")
    picture(501, 20).save(root / "cat" / "tiny.png")
    picture(502).resize((300, 60)).save(root / "dog" / "wide.png")
    for index in range(2):
        picture(600 + index).convert("L").save(root / "cat" / f"grey{index}.png")
    picture(700).convert("L").convert("RGB").save(root / "cat" / "looks-grey.png")

    found = findings(checked(root, CheckConfig(image_size=(64,), val_fraction=0.0, test_fraction=0.0)))
    assert {kind: (finding.count, names(finding)) for kind, finding in found.items()} == {
        "near": (2, ["train/cat/03.png", "train/dog/again.jpg"]),
        "constant": (1, ["train/cat/red.png"]),
        "small": (1, ["train/cat/tiny.png"]),
        "proportions": (1, ["train/dog/wide.png"]),
        "grey": (3, ["train/cat/grey0.png", "train/cat/grey1.png", "train/cat/looks-grey.png"]),
    }
    assert found["near"].level == "warning"
    assert "different classes" in found["near"].text
    assert found["small"].items[0] | {"height": 20, "width": 20} == found["small"].items[0]


@pytest.mark.parametrize(("side", "small"), [(8, 0), (100, 0), (300, 0)])
def test_images_of_one_size_are_not_small(side: int, small: int, tmp_path: Path) -> None:
    """Whatever size training then chooses was chosen for them."""
    assert "small" not in findings(checked(write_pictures(tmp_path / "data", 4, side), ALONE))


def test_the_size_is_the_one_that_training_chooses(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "data", 6)
    picture(99, 50).save(root / "cat" / "other.png")
    splits = open_data(str(root), ALONE)
    expected, notes = choose(ALONE, splits.train)
    found = checked(root, ALONE)
    assert f"{expected.size[0]}x{expected.size[1]} pixels" in findings(found)["small"].text
    assert set(notes) <= set(found.notes)


def test_classes_that_are_missing_alone_or_small(tmp_path: Path) -> None:
    hostile.write_classes(tmp_path / "data" / "train", {"ant": 30, "bee": 3, "cat": 1, "dog": 4})
    hostile.write_classes(tmp_path / "data" / "test", {"ant": 2, "bee": 2, "cat": 2}, seed=10**7)
    found = findings(checked(tmp_path / "data", CheckConfig(val_fraction=0.0)))
    assert found["missing"].items == [{"split": "test", "class": "dog"}]
    assert found["single"].items == [{"split": "train", "class": "cat", "count": 1}]
    assert [item["class"] for item in found["unbalanced"].items] == ["bee", "cat"]
    assert "ant has 30 times as many training images as cat" in found["unbalanced"].text
    assert all(finding.level == "warning" for finding in found.values())


def test_F12_a_class_that_is_lost_is_an_error(sound: Path) -> None:
    hostile.spoil(sound / "test", [f"dog/{i:04d}.png" for i in range(8)])
    found = findings(checked(sound, CheckConfig(on_bad="skip")))
    assert found["lost"].level == "error"
    assert found["lost"].items == [{"split": "test", "class": "dog"}]
    assert not training_takes(sound, CheckConfig(on_bad="skip"))


def test_nothing_readable(sound: Path) -> None:
    hostile.spoil(sound, [str(path.relative_to(sound)) for path in sound.rglob("*.png")])
    found = checked(sound)
    assert found.images == {"readable": 0}
    assert findings(found)["corrupt"].count == 48


class Deadly(Source):
    """Four images of which the second cannot be survived."""

    def __init__(self, deed: Callable[[], None]) -> None:
        super().__init__(["a", "b"], np.array([0, 1, 0, 1]), [f"record {i}" for i in range(4)])
        self.deed = deed

    def image(self, index: int, at_least: tuple[int, int] | None = None) -> Image:
        if index == 1:
            self.deed()
        return hostile.random_pixels(1, 16, 16, seed=index)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    while True:
        time.sleep(1)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("deed", "reason"), [(die, "killed"), (hang, "not done after 2 seconds")])
def test_F9_what_kills_or_hangs_its_process_is_one_unreadable_image(deed: Callable[[], None], reason: str) -> None:
    splits = Splits(Deadly(deed))
    seen = survey(splits.named(), "deadly", 2, bounds=Bounds(seconds=2.0))
    found = findings(report(seen, splits, CONFIG, "skip"))
    assert names(found["corrupt"]) == ["train/record 1"]
    assert reason in found["corrupt"].items[0]["reason"]


def recalled(splits: Splits, name: str, workers: int = 2) -> tuple[Survey, int]:
    """What is known of all images, and how many of them were not looked at again."""
    looked_at: list[int] = []
    seen = survey(splits.named(), name, workers, lambda done, total: looked_at.append(done))
    return seen, len(seen.traits) - len(looked_at)


def test_the_outcome_is_the_same_with_any_number_of_processes_and_from_memory(sound: Path) -> None:
    hostile.spoil(sound / "train", ["cat/0003.png", "dog/0001.png"])
    splits = open_data(str(sound), CONFIG)
    results, counts = zip(*(recalled(splits, f"first {workers}", workers) for workers in (1, 2, 5)), strict=True)
    again, known = recalled(splits, "first 1")
    assert (counts, known) == ((0, 0, 0), 46)
    expected = report(results[0], splits, CONFIG)
    assert all(report(result, splits, CONFIG) == expected for result in [*results, again])
    assert again.reasons == results[0].reasons


def test_what_changed_is_looked_at_again(sound: Path) -> None:
    def remembered() -> int:
        return recalled(open_data(str(sound), CONFIG), "x")[1]

    assert (remembered(), remembered()) == (0, 48)
    path = sound / "train" / "cat" / "0000.png"
    before, data = path.stat(), path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert findings(checked(sound)).keys() <= {"corrupt"}
    assert remembered() == 47
    shutil.copy(sound / "train" / "cat" / "0001.png", path)
    (sound / "test" / "dog" / "0000.png").unlink()
    assert remembered() == 46


DAMAGES: list[Callable[[bytes], bytes]] = [
    lambda data: b"", lambda data: data[: len(data) // 2], lambda data: data[:-200], lambda data: bytes(1000),
    lambda data: data.replace(b"keys", b"kays"), *[lambda data, s=seed: hostile.mutated(data, s) for seed in range(25)],
]  # fmt: skip


def test_a_damaged_memory_is_no_harm(sound: Path, tmp_path: Path) -> None:
    splits = open_data(str(sound), CONFIG)
    expected = report(survey(splits.named(), "x", 2), splits, CONFIG)
    (place,) = (tmp_path / "cache" / "check").iterdir()
    whole = place.read_bytes()
    for damage in DAMAGES:
        place.write_bytes(damage(whole))
        assert report(survey(splits.named(), "x", 1), splits, CONFIG) == expected


def test_a_cache_that_cannot_be_written_costs_only_time(sound: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    found = checked(sound)
    assert found.findings == []
    assert any("no faster" in note for note in found.notes)


def test_unlabelled_images_are_checked_too(tmp_path: Path) -> None:
    images = hostile.random_pixels(6, 1, 12, 12)
    images[5] = images[2]
    splits = Splits(ArraySource(images, np.full(6, -1), []))
    found = report(survey(splits.named(), "x", 1), splits, CONFIG)
    assert found.classes == []
    assert {kind: finding.count for kind, finding in findings(found).items()} == {"duplicates": 1}
    assert found.findings[0].items[0]["images"][0] == {"split": "train", "id": "array[2]", "class": None}


# The command line.


def run(*words: str, quiet: bool = True) -> int:
    """The verb's exit code, as `main` would make it of an error."""
    try:
        return data_check(list(words), Common(quiet=quiet))
    except (DataError, QualityGateError, UsageError) as error:
        return error.exit_code


@pytest.fixture
def flawed(sound: Path) -> Path:
    """A set with a leak, a conflict, and an unreadable image of 49."""
    shutil.copy(sound / "train/cat/0000.png", sound / "test/cat/leak.png")
    shutil.copy(sound / "train/cat/0001.png", sound / "train/dog/=1+1.png")
    hostile.spoil(sound, ["val/dog/0003.png"])
    return sound


def test_the_forms_say_the_same_and_stdout_carries_data_only(flawed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--data", str(flawed), "--on-bad", "skip", "--output", "out/check.json")
    assert run(*words, "--format", "json", quiet=False) == 0
    captured = capsys.readouterr()
    printed = json.loads(captured.out)
    assert json.loads(Path("out/check.json").read_text(encoding="utf-8")) == printed
    assert "class folders below" in captured.err
    kinds = {finding["kind"]: finding for finding in printed["findings"]}
    assert set(kinds) == {"corrupt", "leaks", "conflicts", "duplicates"}

    assert run(*words, "--format", "csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    for kind, finding in kinds.items():
        images = [image for item in finding["items"] for image in item.get("images", [item])]
        assert [row["id"].removeprefix("'") for row in rows if row["kind"] == kind] == [i["id"] for i in images]
    assert not any(cell.startswith("=") for row in rows for cell in row.values())

    assert run(*words) == 0
    table = capsys.readouterr()
    assert table.err == ""
    assert all(finding["text"] in table.out for finding in kinds.values())
    assert all(finding["advice"] in table.out for finding in kinds.values())
    assert "train: cat/0000.png = test: cat/leak.png" in table.out


@pytest.mark.parametrize(
    ("fail_on", "why"),
    [
        ("corrupt", "cannot be read"), ("leaks", "train also holds"), ("duplicates", "train also holds"),
        ("conflicts", "different classes"), ("any", "cannot be read"), ("corrupt,conflicts", "different classes"),
    ],
)  # fmt: skip
def test_fail_on_leaves_with_8_and_says_why(fail_on: str, why: str, flawed: Path) -> None:
    with pytest.raises(QualityGateError, match=why) as caught:
        data_check(["--data", str(flawed), "on_bad=skip", f"fail_on={fail_on}"], Common())
    assert caught.value.exit_code == 8


def test_fail_on_lets_sound_data_pass(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--data", str(sound), "--fail-on", "any", "corrupt", "duplicates") == 0
    assert "nothing is wrong with this data" in capsys.readouterr().out


def test_what_training_refuses_leaves_with_3_and_says_all_first(
    flawed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--data", str(flawed), "--format", "json", "--fail-on", "any") == 3
    assert {f["kind"]: f["level"] for f in json.loads(capsys.readouterr().out)["findings"]}["corrupt"] == "error"
    shutil.rmtree(flawed / "train" / "cat")
    assert run("--data", str(flawed)) == 3  # D04


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--cache", "ram"], "no effect"),
        (["--output", "."], "is a folder"),
    ],
)
def test_settings_that_cannot_be(words: list[str], answer: str, sound: Path) -> None:
    with pytest.raises(UsageError, match=answer):
        data_check(["--data", str(sound), *words], Common())


def test_I21_names_and_classes_are_printed_safely(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = hostile.write_classes(tmp_path / "data", {"[red]x": 3, "b\x1b[31m": 3})
    (root / "[red]x" / os.fsdecode(b"\xff[bold]\n.png")).write_bytes(b"")
    for form in ("table", "csv", "json"):
        assert run("--data", str(root), "--on-bad", "skip", "--format", form) == 0
        text = capsys.readouterr().out
        assert "[red]x" in text
        assert "\x1b" not in text
        text.encode()


def test_the_users_files_stay_as_they_are(flawed: Path) -> None:
    def state() -> dict[str, tuple[bytes, int]]:
        files = [path for path in flawed.rglob("*") if path.is_file()]
        return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    before = state()
    assert run("--data", str(flawed), "--on-bad", "skip") == 0
    assert state() == before
    assert {path.name for path in flawed.parent.iterdir()} == {"data", "cache"}


INTERRUPTED = """
import sys
from msresnet.cli import data_check, main
from msresnet.data.sources import folder
seen = folder.FileSource.image
def slow(self, index, at_least=None):
    import time; time.sleep(0.2)
    return seen(self, index, at_least)
folder.FileSource.image = slow
sys.modules["msresnet.cli.data"] = data_check
print("ready", flush=True)
sys.exit(main.main(["data", "--data", sys.argv[1]]))
"""


@pytest.mark.timeout(90)
def test_F6_stopping_keeps_what_is_known_and_leaves_no_process(sound: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(sound)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as job:
        assert job.stdout is not None
        assert job.stderr is not None
        assert job.stdout.readline() == "ready\n"
        children = Path(f"/proc/{job.pid}/task/{job.pid}/children")
        while job.poll() is None and not children.read_text(encoding="ascii").split():
            time.sleep(0.05)
        time.sleep(1.5)
        os.killpg(job.pid, signal.SIGINT)
        assert job.wait(20) == 130
        assert job.stderr.read().splitlines()[-1] == "stopped"
    with pytest.raises(ProcessLookupError):
        os.killpg(job.pid, 0)
    splits = open_data(str(sound), CONFIG)
    name = json.dumps([str(sound), None, None])
    assert 0 < recalled(splits, name)[1] < 48
    (kept,) = (tmp_path / "cache" / "check").iterdir()
    assert stat.S_ISREG(kept.stat().st_mode)
