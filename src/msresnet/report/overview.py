"""The sections that every task has: the headline, how training went, how it came about."""

from __future__ import annotations

from typing import Any

from msresnet.infer import baseline
from msresnet.report.charts import losses, scores
from msresnet.report.page import Command, Headline, Headlines, Notes, Part, Row, Section, Table, Words, percent, span
from msresnet.report.story import Story
from msresnet.tasks import base as tasks
from msresnet.tasks.words import title


def lead(story: Story) -> str:
    """What was measured on which images, and what has seen them, where that is known."""
    metrics = story.evaluation.metrics
    split = metrics["split"]
    fitted = metrics.get("calibration", {}).get("split") == split
    seen = {
        "test": ", which neither training nor the choice of the model has seen",
        "val": ", which also chose the model: expect a little less on new images",
        "train": ", which the model was trained on: expect less on new images",
    }
    images = f"{metrics['n']:,} image{'s' if metrics['n'] != 1 else ''}"
    told = seen.get(split, "") if story.known and not fitted else ""
    return f"Measured on {images} of the {split} set{told}."


def overview(story: Story) -> Section:
    """The figure that matters most, what the model is, and all figures with their intervals."""
    metrics, metric = story.evaluation.metrics, story.trained.task.metric
    interval = span(metrics.get(f"{metric}_ci95"))
    words = title(metric) + (f"; 95 % interval {interval}" if interval else "")
    value = metrics[metric]  # None of images without an object
    first = Headline("-" if value is None else percent(value), words)
    parts: list[Part] = [Headlines([first, *_model(story)]), _plain(story.trained.task.tables(metrics)[0])]
    if "baseline" in metrics:
        parts.append(_plain(baseline.table(metrics, story.trained.task.gates)))
    return Section("overview", "How good it is", parts)


def _plain(table: tasks.Table) -> Table:
    """A task's table on a page."""
    return Table(table.title or "Figures", table.columns, table.rows)


def _model(story: Story) -> list[Headline]:
    metrics = story.evaluation.metrics
    found = [Headline(_short(story.trained.params), "parameters")]
    if "macs" in metrics:
        found.append(Headline(_short(metrics["macs"]), "multiply-adds an image"))
    if "inference_images_per_second" in metrics:
        found.append(Headline(f"{metrics['inference_images_per_second']:,.0f}", "images a second, measured here"))
    if "train_seconds" in metrics:
        found.append(Headline(f"{metrics['train_seconds']:,.0f} s", "of training"))
    return found


def _short(count: int) -> str:
    """A number as wide as a card has room for."""
    unit = next(((size, letter) for size, letter in ((1e9, "G"), (1e6, "M")) if count >= size), None)
    return f"{count:,}" if unit is None else f"{count / unit[0]:,.2f} {unit[1]}"


def learning(story: Story) -> Section | None:
    """Loss and validation over the epochs; nothing where the training is not known."""
    if not story.history:
        return None
    charts: list[Part] = [losses(story.history)]
    # The last epoch is validated where any is.
    metric = next((k for k in story.history[-1] if k.startswith("val_") and k != "val_loss"), None)
    if metric is not None:
        charts.append(scores(story.history, metric, title(metric.removeprefix("val_"))))
    return Section("learning", "How it learnt", [Row(charts)])


def tables(story: Story) -> Section | None:
    """The task's other tables, of tasks without sections of their own for them."""
    found = story.trained.task.tables(story.evaluation.metrics)[1:]
    return Section("figures", "More figures", [_plain(table) for table in found]) if found else None


def origin(story: Story) -> Section:
    """The command, what was inferred, and the machine."""
    bundle = story.trained
    parts: list[Part] = [
        Command(story.command),
        Words(f"Every image, in training and in use: {bundle.preprocess.describe()}.", soft=False),
    ]
    if story.notes:
        parts.append(Notes(story.notes))
    parts.append(machine(story.environment))
    return Section("origin", "How this came about", parts)


def machine(environment: dict[str, Any]) -> Table:
    """The machine and its software."""
    rows = [(name, _text(value)) for name, value in environment.items() if value]
    return Table("The machine", ("what", "which"), rows)


def _text(value: Any) -> str:
    return str(value) if isinstance(value, (str, int, float)) else ", ".join(map(str, value))
