"""`msresnet explain`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from msresnet.cli.layers import parse
from msresnet.cli.main import Common
from msresnet.errors import DataError, UsageError, nearest
from msresnet.infer.config import ExplainConfig


def main(words: list[str], common: Common) -> int:
    """Write a picture of the heat map and of the scales' responses, and print the figures."""
    parsed = parse("explain", ExplainConfig, words, common.config)
    config = parsed.config
    if common.print_config:
        print(parsed.table())
        return 0
    path = Path(config.output)
    if path.suffix.lower() != ".png":
        hint = f"--output {path.stem or 'explanation'}.png"
        raise UsageError(f"--output {path}", why="the picture is a PNG", hint=hint)
    from msresnet.bundle import load_bundle
    from msresnet.explain.attribution import grad_cam
    from msresnet.explain.explanation import Explanation
    from msresnet.explain.scales import scale_responses
    from msresnet.files import check_output, write_atomic, write_json
    from msresnet.infer.inputs import expand
    from msresnet.infer.predictor import Predictor
    from msresnet.report.plots import explanation_picture

    check_output(path, folder=False)
    bundle = load_bundle(config.model)
    names = bundle.task.class_names
    if config.target is not None and config.target not in names:
        hint = nearest(config.target, names) or ", ".join(names)
        raise UsageError(f"the model has no class {config.target!r}", hint=hint)
    predictor = Predictor(bundle, "cpu")
    explained = []
    for item in expand(config.inputs, sys.stdin.buffer):
        image = item.decode(bundle.preprocess.at_least)
        if isinstance(image, DataError):
            raise image
        result = predictor.predict([image], [item.id])
        target = names.index(config.target) if config.target is not None else int(result.indices[0])
        heat = grad_cam(bundle, image, target)
        picture = bundle.preprocess.image(image)
        scales = scale_responses(bundle, image, target)
        explained.append(Explanation(item.id, picture, heat, names[target], result, scales))
    write_atomic(path, lambda part: explanation_picture(explained, part))
    rows = [e.to_dict() for e in explained]
    write_json(path.with_suffix(".json"), rows)
    print(json.dumps(rows, indent=2) if config.format == "json" else "\n".join(e.line() for e in explained))
    print(f"picture: {path}", file=sys.stderr)
    return 0
