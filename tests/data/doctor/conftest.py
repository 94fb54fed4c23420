"""Small COCO sets on disk for the checks."""

import json

import numpy as np
import pytest
from PIL import Image

SIZE = (40, 60)  # height, width


def noise(seed, size=SIZE):
    """A picture that looks like no other: coarse noise, enlarged."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), np.uint8)
    return Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)


def rectangle(x, y, w, h, **more):
    """An annotation whose box fits its polygon."""
    polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
    return {"bbox": [x, y, w, h], "segmentation": [polygon], "area": w * h, "iscrowd": 0, "category_id": 1, **more}


class CocoSet:
    """Writes a COCO set; `annotations` has a list for each image."""

    noise, rectangle = staticmethod(noise), staticmethod(rectangle)

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, annotations, pictures=None, name="set", **changes):
        folder = self.folder / name
        (folder / "images").mkdir(parents=True, exist_ok=True)
        pictures = pictures or [noise(seed) for seed in range(len(annotations))]
        images, records = [], []
        for number, (picture, of_image) in enumerate(zip(pictures, annotations, strict=True), 1):
            picture.save(folder / "images" / f"{number}.png")
            images.append(
                {"id": number, "file_name": f"{number}.png", "height": picture.height, "width": picture.width}
            )
            records += [{"image_id": number, **annotation} for annotation in of_image]
        records = [{"id": number, **record} for number, record in enumerate(records, 1)]
        content = {"info": {}, "licenses": [], "images": images, "annotations": records}
        content |= {"categories": [{"id": 1, "name": "pear"}], **changes}
        (folder / "set.json").write_text(json.dumps(content))
        return folder


@pytest.fixture
def coco_set(tmp_path):
    return CocoSet(tmp_path)
