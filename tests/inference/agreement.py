"""When an exported file agrees with `detect`: boxes to 0.05 pixels, scores to 1e-3, masks with an IoU of 0.99."""

import numpy as np

from keras_maskrcnn.ops.masks import paste


def check(expected, found):
    """Fails unless two results of `detect` agree."""
    assert len(found["scores"]) == len(expected["scores"])
    np.testing.assert_array_equal(found["labels"], expected["labels"])
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-3)
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=0.05)
    ours, theirs = expected["masks"], found["masks"]
    assert ((ours & theirs).sum(axis=(1, 2)) >= 0.99 * (ours | theirs).sum(axis=(1, 2))).all()


def check_bare(expected, outputs, image):
    """Fails unless the exported outputs of one image, `[D, ...]` by name, agree with a result of `detect`."""
    count, (height, width) = int(outputs["num_detections"]), image.shape[:2]
    boxes, scores, labels, masks = (
        outputs[f"detection_{name}"][:count] for name in ("boxes", "scores", "classes", "masks")
    )
    boxes = boxes[:, [1, 0, 3, 2]] * [width, height, width, height]
    pasted = paste(masks, boxes, (height, width), how="whole_pixels")
    check(expected, {"boxes": boxes, "scores": scores, "labels": labels, "masks": pasted})
