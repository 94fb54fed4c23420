"""A Markdown table of what each preset uses, from the files of the presets; docs/presets.md holds it."""

from keras_maskrcnn.heads.anchors import Anchors
from keras_maskrcnn.heads.proposals import Proposals
from keras_maskrcnn.heads.prototypes import PrototypeStage
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
    neck, heads, anchors, regions, proposals = KINDS[preset.get("class", presets.CLASS)](config)
    trained = weights.get("source") if "path" in weights else None  # of a folder, what it was trained on
    return [
        f"`{name}`",
        _backbone(config.get("backbone", "resnet50")),
        neck,
        heads,
        _images(config),
        anchors,
        regions,
        proposals,
        weights.get("schedule") or trained or "not known",
    ]


def _two_stages(config):
    """Neck, heads, anchors, regions and proposals of a Mask R-CNN."""
    proposals = Proposals.of(config.get("proposals"))
    in_training, at_test = (proposals.limits(training)["post_nms"] for training in (True, False))
    regions = RegionSampling.of(config.get("box_sampling")).size
    neck, anchors = str(config.get("neck", "fpn") or "none"), _anchors(config)
    return neck, _heads(config), anchors, str(regions), f"{in_training} / {at_test}"


def _one_stage(config):
    """The same of a YOLACT, which has no regions."""
    heads = f"anchors, {PrototypeStage.of(config.get('prototypes')).count} prototypes"
    return "fpn, P3 to P7", heads, _anchors(config), "none", "none"


def _pixels(config):
    """The same of an FCN, which has no objects."""
    del config
    return "none", "FCN", "none", "none", "none"


KINDS = {presets.CLASS: _two_stages, "keras_maskrcnn>YOLACT": _one_stage, "keras_maskrcnn>FCN": _pixels}


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


def _anchors(config):
    anchors = Anchors.of(config.get("anchors"))

    def listed(values):
        return ", ".join(f"{value:.3g}" for value in values)

    sizes = " / ".join(map(listed, anchors.sizes)) if anchors.sizes else "8 strides"
    return f"{sizes}; {listed(anchors.ratios)}"
