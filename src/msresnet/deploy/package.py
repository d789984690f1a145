"""The folder of an exported model: NAME/config.pbtxt, NAME/README.md, NAME/1/model.*.

Triton and OpenVINO Model Server load such a folder under its name. It appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msresnet.deploy.config import Form
from msresnet.errors import ModelError, ResourceError, UsageError
from msresnet.files import check_free, check_output, disk_errors, make_folder, part_of, write_text
from msresnet.hub import CONFIG
from msresnet.infer.backend import INPUT, OUTPUT
from msresnet.infer.backends.artefact import DIGEST, META, STEM, VERSION
from msresnet.infer.backends.openvino import load_core, short
from msresnet.trained import Trained

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch.export import ExportedProgram

TRITON, CARD = "config.pbtxt", "README.md"
FILES: dict[Form, str] = {"onnx": f"{STEM}.onnx", "openvino": f"{STEM}.xml", "torch": f"{STEM}.pt2"}
TRITON_BACKENDS: dict[Form, str] = {"onnx": "onnxruntime", "openvino": "openvino"}
DELAY = 1000
"""Microseconds that Triton waits for more images."""
CARRIED = f"as JSON under `{META}`"
"""What every card says, so that a package is known from other models' folders for the same servers."""
COMPRESS = "msresnet compress"
"""By what the scores of a compressed bundle say they were measured."""


def check_place(place: Path, ours: Collection[str] = (TRITON, CARD, VERSION)) -> None:
    """Raise UsageError for a folder that cannot be written, or where anything but an earlier result stands.

    Such a result has no other names than `ours`.
    """
    if place.exists() and not place.is_dir():
        raise UsageError("--output is a file", where=str(place), hint="--output elsewhere")
    check_free(place, ours, made=_is_made)
    check_output(place.parent, folder=True)


def _is_made(folder: Path) -> bool:
    """Whether `export` or `compress` wrote a folder: a package tells it in its card, a bundle in its scores."""
    try:
        if (folder / CONFIG).exists():
            scores = json.loads((folder / CONFIG).read_text("utf-8"))["scores"]
            return any(entry.get("measured_by") == COMPRESS for entry in scores.values())
        inner = {file.name for file in (folder / VERSION).iterdir()}
        known = bool(inner) and inner <= {*FILES.values(), f"{STEM}.bin"}
        return known and CARRIED in (folder / CARD).read_text("utf-8")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return False


@contextmanager
def new_folder(place: Path, ours: Collection[str] = (TRITON, CARD, VERSION)) -> Iterator[Path]:
    """A folder to fill, which takes its place when all went well; what stood there before stays until then.

    Raises UsageError where `check_place` does, ResourceError where it cannot be written.
    """
    check_place(place, ours)
    with disk_errors(place):
        make_folder(place.parent)
        part = part_of(place)
        part.mkdir()
        try:
            yield part
            old = part.with_name(f"{part.name}-old")
            if place.exists():
                place.rename(old)
            part.rename(place)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def write_onnx(folder: Path, proto: ModelProto) -> Path:
    """Write a stamped ONNX model into a package; returns the file. Raises ModelError for one that is too large."""
    file = _file(folder, "onnx")
    try:
        file.write_bytes(proto.SerializeToString())
    except ValueError as error:  # protobuf holds 2 GiB at most
        raise ModelError("the network is too large for one ONNX file", why=str(error), hint="--format torch") from error
    return file


def write_openvino(folder: Path, proto: ModelProto) -> Path:
    """Write a stamped ONNX model as OpenVINO's own files; returns the .xml. Raises ModelError, ResourceError."""
    core = load_core()
    import openvino

    file, weights = _file(folder, "openvino"), _file(folder, "openvino").with_suffix(".bin")
    carried = {entry.key: entry.value for entry in proto.metadata_props}
    try:
        model = core.read_model(proto.SerializeToString())
        openvino.serialize(model, str(file), str(weights))
        # The weights' digest is known only now; the second writing gives the same weights.
        model.set_rt_info(hashlib.sha256(weights.read_bytes()).hexdigest(), DIGEST)
        model.set_rt_info(carried[META], META)
        openvino.serialize(model, str(file), str(weights))
    except RuntimeError as error:
        raise ModelError("OpenVINO cannot write the model", where=str(file), why=short(error)) from error
    return file


def write_program(folder: Path, program: ExportedProgram, values: dict[str, Any]) -> Path:
    """Write a torch.export program that carries a config; returns the file."""
    import torch

    file = _file(folder, "torch")
    torch.export.save(program, file, extra_files={META: json.dumps(values)})
    return file


@dataclass(frozen=True)
class About:
    """What a package says in words.

    Args:
        name: of the folder, by which servers know the model.
        form: of the file.
        precision: of the network.
        taken, given: the shapes of an image and of its outputs, -1 where a side is free.
        proof: how it compares with what it was made from.
        max_batch: the largest batch that Triton may put together.
    """

    name: str
    form: Form
    precision: str
    taken: tuple[int, ...]
    given: tuple[int, ...]
    proof: str
    max_batch: int = 64


def describe(folder: Path, trained: Trained, about: About) -> None:
    """Write Triton's configuration and the card."""
    if about.form in TRITON_BACKENDS:
        write_text(folder / TRITON, triton(about))
    write_text(folder / CARD, card(trained, about))


def triton(about: About) -> str:
    """config.pbtxt."""
    taken, given = (", ".join(map(str, shape)) for shape in (about.taken, about.given))
    return f"""name: "{about.name}"
backend: "{TRITON_BACKENDS[about.form]}"
max_batch_size: {about.max_batch}
input [ {{ name: "{INPUT}", data_type: TYPE_UINT8, dims: [ {taken} ] }} ]
output [ {{ name: "{OUTPUT}", data_type: TYPE_FP32, dims: [ {given} ] }} ]
dynamic_batching {{ max_queue_delay_microseconds: {DELAY} }}
"""


def card(trained: Trained, about: About) -> str:
    """The card, in Markdown."""
    post, prep = trained.postprocess, trained.preprocess
    names = ", ".join(post.class_names[:20]) + (" …" if len(post.class_names) > 20 else "")
    size = f"{prep.size[0]} x {prep.size[1]} pixels"
    size += " (others run, and were not measured)" if -1 in about.taken else ""
    return f"""# {about.name}: {trained.architecture}, {post.task} of {len(post.class_names)} classes

Classes, in the order of their indices: {names}

`{VERSION}/{FILES[about.form]}` takes `{INPUT}`, uint8 (N, {prep.channels}, H, W) of {size}, \
{"grey" if prep.channels == 1 else "RGB"}, and gives `{OUTPUT}`, float32. It was trained on what this makes of an \
image: {prep.steps()}. Normalising is part of the network. {post.meaning} The file carries all of this \
{CARRIED}.

Computes in {about.precision}. Beside the model that it was made from: {about.proof}. Licence of the weights: \
{trained.licence}.
{_use(about)}{_alone(trained, about)}"""


def _use(about: About) -> str:
    file = f"{VERSION}/{FILES[about.form]}"
    if about.form == "torch":
        return f'\n```python\nimport torch\n\nnetwork = torch.export.load("{file}").module()\n```\n'
    served = f"tritonserver --model-repository=..\novms --model_path . --model_name {about.name}"
    return f"\n```\nmsresnet predict {file} image.png\n{served}\n```\n"


def _alone(trained: Trained, about: About) -> str:
    """How the file is used without this package, where what is done to an image is simple enough to be written out."""
    prep, post = trained.preprocess, trained.postprocess
    simple = prep.resize == "squash" and prep.threshold is None and not prep.binary
    if about.form != "onnx" or not post.code or not simple:
        return ""
    mode, axes = ("L", "[None, None]") if prep.channels == 1 else ("RGB", ".transpose(2, 0, 1)[None]")
    return f"""
Without msresnet, to within what another decoder and another way of resizing change:

```python
import numpy as np
import onnxruntime
from PIL import Image, ImageOps

image = ImageOps.exif_transpose(Image.open("image.png")).convert("{mode}")
image = image.resize(({prep.size[1]}, {prep.size[0]}), Image.Resampling.BILINEAR)
session = onnxruntime.InferenceSession("{VERSION}/{FILES["onnx"]}")
(outputs,) = session.run(None, {{"{INPUT}": np.asarray(image){axes}}})
{post.code}
```
"""


def _file(folder: Path, form: Form) -> Path:
    inner = folder / VERSION
    inner.mkdir(exist_ok=True)
    return inner / FILES[form]


def check_form(form: Form) -> None:
    """Raise ResourceError where what writes this form is not installed."""
    if form == "openvino":
        load_core()
    if form != "torch":
        try:
            import onnx  # noqa: F401
            import onnxscript  # noqa: F401
        except ImportError as error:
            hint = 'pip install "msresnet[export]"'
            raise ResourceError(f"--format {form} needs onnx and onnxscript", why=str(error), hint=hint) from error
