"""A Markdown table of what each preset uses, from the files of the presets; docs/presets.md holds it."""

from keras_maskrcnn.heads.anchors import Anchors
from keras_maskrcnn.heads.rpn import Proposals
from keras_maskrcnn.heads.sampled_regions import RegionSampling
from keras_maskrcnn.inference.placement import Resize
from keras_maskrcnn.models import presets

COLUMNS = (
    "preset",
    "backbone",
    "neck",
    "heads",
    "images: shorter / longer side",
    "anchors: sizes of each level, ratios",
    "regions per image (N)",
    "proposals: training / test",
    "schedule of the weights",
)


def table():
    """The table of all presets, a text of several lines."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *(_row(name) for name in presets.names())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(name):
    preset = presets.read(name)
    config, weights = preset["config"], preset.get("weights") or {}
    trained = weights.get("source") if "path" in weights else None  # of a folder, what it was trained on
    ends = [weights.get("schedule") or trained or "not known"]
    kind = preset.get("class", presets.CLASS)
    if kind != presets.CLASS:  # no regions
        starts = [f"`{name}`", _backbone(config["backbone"]), "none", kind.rpartition(">")[2]]
        return [*starts, _images(config), "none", "none", "none", *ends]
    proposals = Proposals.of(config.get("proposals"))
    in_training, at_test = (proposals.limits(training)["post_nms"] for training in (True, False))
    return [
        f"`{name}`",
        _backbone(config.get("backbone", "resnet50")),
        str(config.get("neck", "fpn") or "none"),
        _heads(config),
        _images(config),
        _anchors(Anchors.of(config.get("anchors"))),
        str(RegionSampling.of(config.get("box_sampling")).size),
        f"{in_training} / {at_test}",
        *ends,
    ]


def _backbone(given):
    """Name, and width where it is not the papers'."""
    options = {"name": given} if isinstance(given, str) else given.get("config", given)
    width = options.get("width", 64)
    return options["name"] if width == 64 else f"{options['name']}, width {width}"


def _heads(config):
    names = ["cascade of boxes" if config.get("cascade") is not None else "box"]
    names += ["mask"] if config.get("mask_stage", {}) is not None else []
    names += [head["class_name"].removesuffix("Head").lower() for head in config.get("heads", ())]
    return ", ".join(names)


def _images(config):
    if config.get("image_size"):
        return " × ".join(map(str, config["image_size"]))
    rule = Resize.of(config.get("resize"))
    return f"scaled by {rule.scale:g}" if rule.scale else f"{rule.shorter} / {rule.longer}"


def _anchors(anchors):
    def listed(values):
        return ", ".join(f"{value:.3g}" for value in values)

    sizes = " / ".join(map(listed, anchors.sizes)) if anchors.sizes else "8 strides"
    return f"{sizes}; {listed(anchors.ratios)}"
