"""Starting from weights: one's own runs with all that they were, others' with what stands beside them."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

import boxed
from msresnet.bundle import load_bundle
from msresnet.cli.main import main
from msresnet.errors import ModelError, MsresnetError, UsageError
from msresnet.models.described import describe
from msresnet.models.factory import create_classifier
from msresnet.tasks.classification import ClassificationTask
from msresnet.train.checkpoint import checkpoints
from msresnet.train.taken import begin_from
from randomise import randomised
from tiny import kill, pictures, plan_for, same, start, train_words, trainer, wait_for, weights

QUICK = ["--epochs", "1", "--batch-size", "8", "--precision", "fp32", "--device", "cpu", "--workers", "0", "-q"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two classes at 14 pixels, of a network that is nobody's default."""
    folder = tmp_path_factory.mktemp("mine")
    words = ["train", "--data", str(pictures(folder / "bars")), "--output", str(folder / "run")]
    arguments = ["--model", "msresnet_micro", "--model-args", "operator=plain", "widths=[8,8,16]"]
    assert main([*words, *arguments, "--image-size", "14", *QUICK]) == 0
    return folder / "run"


def three_classes(root: Path) -> Path:
    """Bars, and noise without any."""
    pictures(root)
    (root / "none").mkdir()
    random = np.random.default_rng(1)
    for number in range(12):
        noise = random.integers(0, 100, (12, 12), dtype=np.uint8)
        Image.fromarray(noise).save(root / "none" / f"{number}.png")
    return root


def test_all_of_ones_own_run_is_taken_over(run: Path, tmp_path: Path) -> None:
    plan = plan_for(three_classes(tmp_path / "data"), model="auto", weights=str(run))
    before = load_bundle(run)
    assert plan.model == "msresnet_micro"
    assert {"operator": "plain", "widths": [8, 8, 16]}.items() <= plan.arguments.items()
    assert (plan.preprocess.size, plan.preprocess.mean) == ((14, 14), before.preprocess.mean)
    assert plan.preprocess.std == before.preprocess.std
    given, begun = before.model.state_dict(), trainer(plan).network.state_dict()
    assert begun["fc.weight"].shape[0] == 3
    assert same(*({k: v for k, v in each.items() if not k.startswith("fc.")} for each in (given, begun)))
    assert "model msresnet_micro operator=plain widths=[8, 8, 16]: that of the weights" in plan.notes


def test_the_classifier_stays_where_there_are_as_many_classes(run: Path, tmp_path: Path) -> None:
    plan = plan_for(pictures(tmp_path / "data"), model="auto", weights=str(run / "model.safetensors"))
    assert same(load_bundle(run).model.state_dict(), trainer(plan).network.state_dict())


@pytest.mark.parametrize("names", [("standing", "lying"), ("a", "lying", "standing"), ("lying", "upright")])
def test_what_is_learnt_of_a_class_belongs_to_its_name(names: tuple[str, ...], run: Path, tmp_path: Path) -> None:
    before = load_bundle(run)
    known = before.task.class_names
    assert known == ("lying", "standing")
    found = describe(run)
    arguments = before.arguments | {"num_classes": len(names)}
    weights = str(run / "model.safetensors")
    begun = begin_from(weights, found, ClassificationTask(names), before.architecture, arguments).state_dict()
    given = before.model.state_dict()
    for key in given.keys() - {"fc.weight", "fc.bias"}:
        assert torch.equal(begun[key], given[key])
    for place, name in enumerate(names):
        same_rows = [bool(torch.equal(begun["fc.weight"][place], row)) for row in given["fc.weight"]]
        assert same_rows == [name == other for other in known]


def test_a_renamed_class_begins_anew_and_says_so(run: Path, tmp_path: Path) -> None:
    data = pictures(tmp_path / "data")
    (data / "standing").rename(data / "upright")
    plan = plan_for(data, model="auto", weights=str(run))
    assert any("they know 1 of the 2 classes by name" in note for note in plan.notes)
    begun, given = trainer(plan).network.state_dict(), load_bundle(run).model.state_dict()
    assert torch.equal(begun["fc.weight"][0], given["fc.weight"][0])
    assert not torch.equal(begun["fc.weight"][1], given["fc.weight"][1])


def test_what_the_user_says_counts(run: Path, tmp_path: Path) -> None:
    data = pictures(tmp_path / "data")
    settings: dict[str, Any] = {"model_args": ("global_pool=avg",), "image_size": (20,), "mean": (0.5,), "std": (0.25,)}
    plan = plan_for(data, weights=str(run), **settings)
    assert {"operator": "plain", "global_pool": "avg"}.items() <= plan.arguments.items()
    assert (plan.preprocess.size, plan.preprocess.mean, plan.preprocess.std) == ((20, 20), (0.5,), (0.25,))
    other = plan_for(data, weights=str(run), model_args=("operator=online",), model="msresnet_micro")
    assert other.arguments["operator"] == "online"
    with pytest.raises(ModelError, match="not those of"):
        trainer(other)
    # A grey mean for three channels is each of theirs.
    colours = plan_for(data, weights=str(run), channels=3)
    assert colours.preprocess.mean == load_bundle(run).preprocess.mean * 3


def test_the_stem_stays_what_it_was_at_another_size(tmp_path: Path) -> None:
    """The house family's stem follows the image's size, so a larger one would be another network."""
    data = pictures(tmp_path / "data", side=32)
    here = ["train", "--data", str(data), "--model", "msresnet10", "--model-args", "widths=[8,8,8,8]", "stem_width=8"]
    assert main([*here, "--output", "run", *QUICK]) == 0
    larger = plan_for(data, model="auto", weights="run", image_size=(128,))
    assert larger.arguments["stem"] == "small"
    assert trainer(larger).network.state_dict().keys() == load_bundle("run").model.state_dict().keys()


def test_F5_a_run_goes_on_without_the_weights_that_it_began_with(run: Path, tmp_path: Path) -> None:
    data, copy = pictures(tmp_path / "data"), Path(shutil.copytree(run, tmp_path / "copy"))
    words = [w for w in train_words(data, None, "-q", "--weights", str(copy), epochs=40) if w != "msresnet_micro"]
    words.remove("--model")
    assert main([*words, "--output", "whole"]) == 0
    process = start([*words, "--output", "killed"], tmp_path / "errors")
    wait_for(lambda: bool(checkpoints(tmp_path / "killed" / "checkpoint")))
    assert kill(process, signal.SIGKILL) == -signal.SIGKILL
    shutil.rmtree(copy)
    assert main(["train", "--resume", "--output", "killed"]) == 0
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))
    settings = yaml.safe_load((tmp_path / "killed" / "train.yaml").read_text())
    assert (settings["model"], settings["image_size"]) == ("auto", None)  # as it was asked for


def test_detectors_keep_their_heads_and_give_their_backbones(tmp_path: Path) -> None:
    data = boxed.coco(tmp_path / "boxes", boxed.truth()).parent.parent
    words = ["train", "--data", str(data), "--model", "msresnet_micro", "--image-size", "32", *QUICK]
    assert main([*words, "--model-args", "pyramid_width=40", "embedding=4", "--output", "boxes-run"]) == 0
    before = load_bundle("boxes-run").model.state_dict()

    again = plan_for(data, model="auto", weights="boxes-run")
    assert {"pyramid_width": 40, "embedding": 4}.items() <= again.arguments.items()
    assert same(trainer(again).network.state_dict(), before)

    whole = plan_for(pictures(tmp_path / "bars"), model="auto", weights="boxes-run", channels=3)
    assert "pyramid_width" not in whole.arguments
    body = {f"body.{k}": v for k, v in trainer(whole).network.state_dict().items() if not k.startswith("fc.")}
    assert same(body, {k: v for k, v in before.items() if k.startswith("body.")})

    # And the other way: the backbone of a classifier, below a pyramid that is new.
    below = plan_for(data, model="auto", weights=str(classifier(tmp_path)))
    given = load_bundle(tmp_path / "classifier").model.state_dict()
    begun = trainer(below).network.state_dict()
    assert all(torch.equal(begun[f"body.{k}"], v) for k, v in given.items() if not k.startswith("fc."))


def classifier(folder: Path) -> Path:
    """A run on pictures in colour."""
    words = ["train", "--data", str(pictures(folder / "few")), "--model", "msresnet_micro", "--channels", "3"]
    assert main([*words, "--output", str(folder / "classifier"), *QUICK]) == 0
    return folder / "classifier"


def test_vectors_of_objects_are_left_or_begin_anew(tmp_path: Path) -> None:
    data = boxed.coco(tmp_path / "boxes", boxed.truth()).parent.parent
    words = ["train", "--data", str(data), "--model", "msresnet_micro", "--image-size", "32", *QUICK]
    assert main([*words, "--output", "plain"]) == 0
    with_vectors = plan_for(data, model="auto", weights="plain", model_args=("embedding=4",))
    begun, before = trainer(with_vectors).network.state_dict(), load_bundle("plain").model.state_dict()
    assert same({k: v for k, v in begun.items() if not k.startswith("embedder.")}, before)
    assert main([*words, "--model-args", "embedding=4", "--output", "vectors"]) == 0
    without = plan_for(data, model="auto", weights="vectors", model_args=("embedding=0",))
    assert same(trainer(without).network.state_dict(), {
        k: v for k, v in load_bundle("vectors").model.state_dict().items() if not k.startswith("embedder.")
    })  # fmt: skip


def timms(folder: Path, **config: Any) -> Path:
    """Weights as a repository of timm's holds them."""
    folder.mkdir()
    model = randomised(create_classifier("resnet20", num_classes=7, in_chans=3))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": "resnet20"} | config))
    return folder


def test_others_weights_say_how_their_pixels_were_normalised(tmp_path: Path) -> None:
    figures = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    folder = timms(tmp_path / "theirs", pretrained_cfg=figures | {"input_size": [3, 32, 32]})
    data = pictures(tmp_path / "data")
    plan = plan_for(data, model="auto", weights=str(folder), channels=3)
    assert (plan.model, plan.preprocess.mean) == ("resnet20", (0.485, 0.456, 0.406))
    assert any(note.endswith("pixels are normalised as theirs were") for note in plan.notes)
    # Grey weights are the sum over colours, so a grey image is normalised by the mean over them.
    grey = plan_for(data, model="auto", weights=str(folder))
    assert grey.preprocess.mean == pytest.approx((0.449,))
    bare = timms(tmp_path / "bare")
    silent = plan_for(data, model="auto", weights=str(bare))
    assert any("nothing says how theirs were" in note for note in silent.notes)
    assert silent.preprocess.mean == plan_for(data).preprocess.mean


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '{"architecture": 3}', "{" * 5000,
        '{"format_version": 1}',
        '{"format_version": 1, "architecture": "resnet20", "arguments": 3}',
    ],
)  # fmt: skip
def test_a_config_that_says_nothing_is_refused_in_words(tmp_path: Path, text: str) -> None:
    folder = timms(tmp_path / "theirs")
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config"):
        plan_for(pictures(tmp_path / "data"), model="auto", weights=str(folder))
    # Where the network is named, the weights may fit all the same.
    assert (
        trainer(plan_for(tmp_path / "data", model="resnet20", weights=str(folder), channels=3)).network.num_classes == 2
    )


@pytest.mark.parametrize(
    "figures", [3, None, {"mean": [0.5], "std": [0]}, {"mean": "a", "std": "b"}, {"mean": [], "std": []}]
)
def test_others_figures_that_are_none_are_not_said(tmp_path: Path, figures: Any) -> None:
    found = describe(timms(tmp_path / "theirs", pretrained_cfg=figures))
    assert found is not None
    assert (found.architecture, found.mean, found.std) == ("resnet20", (), ())


def test_older_configs_of_others_are_one_table(tmp_path: Path) -> None:
    found = describe(timms(tmp_path / "theirs", mean=[0.5, 0.5, 0.5], std=[0.1, 0.2, 0.3]))
    assert found is not None
    assert found.std == (0.1, 0.2, 0.3)


def test_the_form_of_images_is_taken_and_figures_only_behind_it(tmp_path: Path) -> None:
    data = pictures(tmp_path / "data")
    for path in data.rglob("*.png"):
        Image.merge("RGB", [Image.open(path), *Image.new("RGB", (12, 12), (0, 90, 160)).split()[1:]]).save(path)
    words = ["train", "--data", str(data), "--model", "msresnet_micro", "--channels", "1", "--image-size", "16", *QUICK]
    assert main([*words, "--threshold", "otsu", "--binary", "--resize", "pad", "--output", "binary"]) == 0
    before = load_bundle("binary").preprocess
    assert plan_for(data, model="auto", weights="binary").preprocess == before
    # Figures of black and white say nothing about grey levels.
    grey = plan_for(data, model="auto", weights="binary", threshold="100")
    own = plan_for(data, threshold="100", image_size=(16,))
    assert grey.preprocess.mean == own.preprocess.mean
    assert any("theirs went through another threshold" in note for note in grey.notes)


def test_grey_data_stays_grey(tmp_path: Path) -> None:
    """What is colour is mirrored, which digits should not be."""
    colours = load_bundle(classifier(tmp_path)).preprocess
    plan = plan_for(pictures(tmp_path / "data"), model="auto", weights=str(tmp_path / "classifier"))
    assert (colours.channels, plan.preprocess.channels, plan.augment.flip) == (3, 1, 0)


def test_sizes_of_training_and_packed_data(run: Path, tmp_path: Path) -> None:
    data = pictures(tmp_path / "data", side=20)
    assert plan_for(data, model="auto", weights=str(run), train_sizes=(10, 14)).preprocess.size == (14, 14)
    assert plan_for(data, model="auto", weights=str(run), train_sizes=(10, 16)).preprocess.size == (20, 20)
    assert main(["data", "pack", "--data", str(data), "--image-size", "12", "--output", "packed", "-q"]) == 0
    packed = plan_for(Path("packed"), model="auto", weights=str(run))
    assert (packed.model, packed.preprocess.size) == ("msresnet_micro", (12, 12))


def test_the_same_command_goes_on_and_the_weights_are_those_it_began_with(run: Path, tmp_path: Path) -> None:
    """The newest run is what runs/latest names, so a run that starts from it takes its place."""
    data, first = pictures(tmp_path / "data"), bundled(run, tmp_path / "first", licence="cc-by-4.0")
    link = tmp_path / "latest"
    link.symlink_to(first)
    words = ["train", "--data", str(data), "--weights", str(link), "--model-args", "global_pool=avg", *QUICK]
    assert main([*words, "--output", "second"]) == 0
    model = weights(tmp_path / "second")
    for product in ("model.safetensors", "config.json", "metrics.json"):
        (tmp_path / "second" / product).unlink()
    shutil.rmtree(tmp_path / "second" / "checkpoint")  # as if it had ended before the first one
    link.unlink()
    link.symlink_to(tmp_path / "second")
    assert main([*words, "--output", "second", "--resume"]) == 0
    assert same(weights(tmp_path / "second"), model)
    assert load_bundle(tmp_path / "second").licence == "cc-by-4.0"


def test_a_detector_keeps_its_finest_map_at_another_size(tmp_path: Path) -> None:
    data = boxed.coco(tmp_path / "boxes", boxed.truth()).parent.parent
    words = ["train", "--data", str(data), "--model", "msresnet_micro", "--image-size", "64", *QUICK]
    assert main([*words, "--output", "fine"]) == 0
    larger = plan_for(data, model="auto", weights="fine", image_size=(272,))
    assert larger.arguments["finest"] == 4
    assert same(trainer(larger).network.state_dict(), load_bundle("fine").model.state_dict())
    with pytest.raises(ModelError, match=r"image-size out: they are of msresnet_micro at 64x64"):
        trainer(plan_for(data, model="auto", weights="fine", image_size=(32,)))


def test_what_lies_beside_a_file_of_another_name_is_not_its_own(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    (copy / "model.safetensors").rename(copy / "other.safetensors")
    assert describe(copy / "other.safetensors") is None


def test_a_damaged_account_of_the_weights(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--data", str(pictures(tmp_path / "data")), "--weights", str(run), *QUICK]
    assert main([*words, "--output", "second"]) == 0
    for text in ("", "[]", "{}", '{"mean": 3, "std": [], "form": {}}', '{"mean": [], "std": [], "form": {"a": 1}}'):
        (tmp_path / "second" / "weights.json").write_text(text)
        assert main(["train", "--resume", "--output", "second"]) == 4
        assert "weights.json" in capsys.readouterr().err


def bundled(run: Path, folder: Path, **changes: Any) -> Path:
    """A copy of a run whose config says something else."""
    shutil.copytree(run, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "msresnet_mikro"}, {"arguments": {"depht": 3}}, {"arguments": {"operator": "&a [*a, *a]"}},
        {"arguments": {"widths": [10**12]}}, {"preprocess": {"size": [0, 0]}},
        {"preprocess": {"size": [14, 14], "mean": [float("nan")], "std": [1.0]}},
    ],
)  # fmt: skip
def test_a_bundle_that_lies_is_refused_in_words(run: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = bundled(run, tmp_path / "lying", **changes)
    with pytest.raises(MsresnetError):
        plan_for(pictures(tmp_path / "data"), model="auto", weights=str(folder))


def test_C11_weights_of_a_newer_format(run: Path, tmp_path: Path) -> None:
    folder = bundled(run, tmp_path / "newer", format_version=2)
    with pytest.raises(ModelError, match="format 2, this msresnet reads up to 1"):
        plan_for(pictures(tmp_path / "data"), model="auto", weights=str(folder))


def test_weights_that_are_not_there(run: Path, tmp_path: Path) -> None:
    data = pictures(tmp_path / "data")
    with pytest.raises(ModelError) as caught:
        plan_for(data, weights=str(run.with_name("rum")))
    assert caught.value.hint == str(run)
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "train.yaml").write_text("epochs: 3\n")
    with pytest.raises(ModelError, match=r"not finished(?s:.)*--resume --output"):
        plan_for(data, weights=str(unfinished))


def test_a_mean_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one is missing"):
        plan_for(tmp_path, mean=(0.5,))
    with pytest.raises(UsageError, match="above 0"):
        plan_for(tmp_path, mean=(0.5,), std=(0.0,))
    with pytest.raises(UsageError, match="do not fit"):
        plan_for(pictures(tmp_path / "data"), mean=(0.5, 0.5), std=(0.5, 0.5))


def test_the_licence_of_a_bundle_is_passed_on(run: Path, tmp_path: Path) -> None:
    folder = bundled(run, tmp_path / "licensed", licence="cc-by-4.0")
    found = describe(folder)
    assert found is not None
    assert found.licence == "cc-by-4.0"
    assert plan_for(pictures(tmp_path / "data"), model="auto", weights=str(folder)).licence == "cc-by-4.0"
