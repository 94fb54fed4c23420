"""Checks of image files and of what their annotations say about the whole image."""

from keras_maskrcnn.data.doctor.findings import image_check

CROWDED = 100  # instances; the default of `max_instances` in `data.batches`


def _sides(size):
    return f"{size[1]} x {size[0]}"


@image_check(
    "unreadable",
    "error",
    "images or masks that cannot be read",
    "Training skips them. Copy the file again from its source, or remove it from the set.",
)
def unreadable(facts):
    """What the reader raised."""
    if facts.error is not None:
        yield facts.error.reason or str(facts.error), None


@image_check(
    "size-differs",
    "error",
    "annotations of another size than their image",
    "The image was resized or replaced after it was annotated. Annotate the file that is trained on, or correct the "
    "size in the annotations if the objects fit.",
)
def size_differs(facts):
    """The stated size is neither that of the stored image nor of the turned one."""
    if facts.file and facts.stated.size and facts.stated.size not in (facts.file.size, facts.file.upright):
        hint = ", as if width and height were swapped" if facts.stated.size == facts.file.size[::-1] else ""
        yield f"the image has {_sides(facts.file.size)} pixels, its annotations {_sides(facts.stated.size)}{hint}", None


@image_check(
    "exif",
    "warning",
    "images with an EXIF orientation",
    "Some tools annotate the stored pixels, others the turned image. Look at these in the contact sheet; save the "
    "images upright without EXIF to remove the doubt.",
)
def exif(facts):
    """Which orientation the annotations belong to, as far as their size tells."""
    if facts.file is None or facts.file.orientation == 1:
        return
    fits = [
        name
        for name, size in (("stored", facts.file.size), ("upright", facts.file.upright))
        if facts.stated.size == size
    ]
    reason = {0: "the annotations state no size that fits", 1: f"the annotations fit the {''.join(fits)} image"}
    yield f"orientation {facts.file.orientation}; {reason.get(len(fits), 'the annotations fit both')}", None


@image_check(
    "mode",
    "note",
    "images that are not stored as 8-bit RGB",
    "They are converted: grey is repeated, palettes and CMYK become RGB, 16 bits become 8, an opaque alpha channel is "
    "dropped. Nothing to do unless the conversion loses what matters.",
)
def mode(facts):
    """Pillow's mode."""
    if facts.file and facts.file.mode != "RGB":
        alpha = ", alpha is 255 throughout" if facts.file.mode in ("RGBA", "LA") and facts.file.opaque else ""
        yield f"stored as {facts.file.mode}{alpha}", None


@image_check(
    "transparent",
    "warning",
    "images with transparent pixels",
    "They are drawn over white. Store them without transparency if the background should be another one.",
)
def transparent(facts):
    """Alpha below 255, or a transparent colour of a palette."""
    if facts.file and not facts.file.opaque:
        yield f"stored as {facts.file.mode} with transparent pixels", None


@image_check(
    "frames",
    "warning",
    "files with several frames or pages",
    "Only the first frame is read. Save the frames as single images if all are meant.",
)
def frames(facts):
    """Animated GIF, WebP or PNG, and TIFF of several pages."""
    if facts.file and facts.file.frames > 1:
        yield f"{facts.file.frames} frames", None


@image_check(
    "empty",
    "note",
    "images without an object",
    "They are trained on as negatives, which is right if they truly show no object.",
)
def empty(facts):
    """No instance at all, or only crowds."""
    if facts.sample is not None and facts.sample["crowd"].all():
        yield "only crowd regions" if len(facts.sample["crowd"]) else "no annotation", None


@image_check(
    "crowded",
    "warning",
    f"images with more than {CROWDED} objects",
    f"A batch holds {CROWDED} objects per image by default: raise `max_instances`, or train on crops.",
)
def crowded(facts):
    """More instances than a batch holds by default."""
    if facts.sample is not None and len(facts.sample["labels"]) > CROWDED:
        yield f"{len(facts.sample['labels'])} objects", None
