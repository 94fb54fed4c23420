"""Step 2: ways to enlarge maps, on a small map and in networks that are trained for equally many steps."""

from keras import ops
from PIL import Image

from cis680_report.page import Table
from digits_report import networks
from keras_maskrcnn import data, plots, visualize
from keras_maskrcnn.drawing.sheets import titled
from keras_maskrcnn.layers.upsampling import METHODS, Upsampling
from keras_maskrcnn.ops.maps import unpool

SIDE, FACTOR = 48, 4  # pixels of the digit that is pooled, and by how much
SHOWN = 4  # images with the maps of all networks


def enlarged(source):
    """A digit on 48×48 pixels, its 4×4 max pooling, and the enlargements of that by all methods.

    The two unpoolings are shown without the convolution that follows them in a network, and the deconvolution as it is
    before training.

    Args:
        source: of `data.Digits`.

    Returns:
        dict from titles to float [48, 48], for the pooling [12, 12].
    """
    options = {"digits": (1, 1), "digit_size": (33, 33), "rotation": 0, "noise": (0, 0), "colour": False}
    image = data.Digits(1, (SIDE, SIDE), 1, source, "val", **options)[0]["image"][..., 0] / 255.0
    guide = ops.convert_to_tensor(image[None, ..., None], "float32")
    values = ops.max_pool(guide, FACTOR)
    results = {"image": guide, "max pooling": values}
    for method in METHODS:
        if method in ("unpool", "max_unpool"):
            results[method] = unpool(values, FACTOR, guide if method == "max_unpool" else None)
        else:
            results[method] = Upsampling(FACTOR, method)(values)
    return {name: ops.convert_to_numpy(found)[0, ..., 0] for name, found in results.items()}


def operators(source):
    """Picture of `enlarged`, uint8 [h, w, 3]."""
    panels = []
    for name, values in enlarged(source).items():
        shade = plots.shaded(values)
        panels.append(
            titled(shade.repeat(5 * SIDE // len(shade), axis=0).repeat(5 * SIDE // len(shade), axis=1), name, 16)
        )
    return visualize.grid(panels, columns=4)


def maps(models, samples, class_names):
    """Ground truth and the maps of all networks, one row per image."""
    panels = []
    for sample in samples:
        found = {"ground truth": sample["semantic"]}
        found |= {name: model.segment(sample["image"]) for name, model in models.items()}
        panels += [
            titled(visualize.draw_semantic(sample["image"], each, class_names, scale=2), name, 16)
            for name, each in found.items()
        ]
    return visualize.grid(panels, columns=1 + len(models))


def fill(report, work, folder, features):
    """Fills step 2 and saves its pictures.

    Args:
        report: `cis680_report.page.Report`.
        work: `networks.Work`.
        folder: folder of the pictures.
        features: the trained FCN.

    Returns:
        dict from methods to the figures of their networks, for JSON.
    """
    models, figures = {}, {}
    for method in METHODS:
        models[method], figures[method] = networks.short(work, features, upsampling=method)
        print(f"up-sampling by {method}: mean IoU {figures[method]['mean_IoU']:.3f}", flush=True)
    samples = [work.val[index] for index in range(min(SHOWN, len(work.val)))]
    pictures = {"upsampling": operators(work.arguments.digits), "maps": maps(models, samples, work.val.class_names)}
    for name, drawn in pictures.items():
        Image.fromarray(drawn).save(folder / f"{name}.png")
    header = ["up-sampling", "weights of the network", "mean IoU", "boundary F", "last loss"]
    names = ("parameters", "mean_IoU", "boundary_F")
    rows = [[method, *(found[name] for name in names), found["loss"][-1]] for method, found in figures.items()]
    best = max(figures, key=lambda method: figures[method]["mean_IoU"])
    report.step(2, steps=work.arguments.page_steps, best=best, variants=Table(header, rows), **pictures)
    return figures
