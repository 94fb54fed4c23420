"""Annotation files with outlines: COCO and what is derived from it, VIA, LabelMe, YOLO; and layouts of folders."""

import pathlib
import sys

import numpy as np
from target import changed_files, drawn, read_all, target, written

from keras_maskrcnn import data

POLYGON = [2, 1, 6, 1, 6, 4, 2, 4]
SIZE = {"height": 8, "width": 10}
COMMON = {"image_id": 0, "category_id": 3, "bbox": [2, 1, 4, 3], "area": 12, "iscrowd": 0}


def load():
    """Imports what the targets need, before memory is limited."""
    import pycocotools.mask
    import yaml

    return pycocotools.mask, yaml


def coco_tree(**image):
    masks = [POLYGON], {"counts": [9, 3, 68], "size": [8, 10]}, {"counts": "93T2", "size": [8, 10]}
    return {
        "images": [{"id": 0, "file_name": "one.png", **SIZE, **image}],
        "categories": [{"id": 7, "name": "ant"}, {"id": 3, "name": "zebra"}],
        "annotations": [{"id": index, **COMMON, "segmentation": mask} for index, mask in enumerate(masks)],
    }


@target("coco", quick=400, weight=3)
def coco(folder):
    drawn(folder / "one.png")
    path = written(folder / "a.json", coco_tree())
    return changed_files(folder, lambda: read_all(lambda: data.Coco(path, folder)))


@target("keypoints", quick=200)
def keypoints(folder):
    drawn(folder / "one.png")
    points = [[1, 2, 2, 3, 4, 1], [0] * 6]
    common = {**COMMON, "segmentation": [POLYGON], "num_keypoints": 1}
    category = {"id": 3, "name": "person", "keypoints": ["left", "right"], "skeleton": [[1, 2]]}
    path = written(folder / "a.json", {
        "images": [{"id": 0, "file_name": "one.png", **SIZE}],
        "categories": [category],
        "annotations": [{"id": index, **common, "keypoints": row} for index, row in enumerate(points)],
    })  # fmt: skip
    return changed_files(folder, lambda: read_all(lambda: data.Coco(path, folder, keypoints=True)))


@target("panoptic", quick=150)
def panoptic(folder):
    ids = np.zeros((8, 10), int)
    ids[:3], ids[4:, 4:] = 3, 300
    drawn(folder / "images" / "9.jpg")
    drawn(folder / "panoptic" / "9.png", values=np.stack([ids % 256, ids // 256, ids * 0], -1).astype(np.uint8))
    segments = [
        {"id": number, "category_id": category, "iscrowd": 0, "area": 1, "bbox": [0, 0, 1, 1]}
        for number, category in ((3, 184), (300, 7))
    ]
    path = written(folder / "panoptic.json", {
        "images": [{"id": 9, "file_name": "9.jpg", **SIZE}],
        "annotations": [{"image_id": 9, "file_name": "9.png", "segments_info": segments}],
        "categories": [{"id": 7, "name": "dog", "isthing": 1}, {"id": 184, "name": "tree", "isthing": 0}],
    })  # fmt: skip
    return changed_files(folder, lambda: read_all(lambda: data.CocoPanoptic(path, folder / "images")))


@target("lvis", quick=100)
def lvis(folder):
    drawn(folder / "val2017" / "1.png")
    lists = {"neg_category_ids": [3], "not_exhaustive_category_ids": []}
    tree = coco_tree(coco_url="http://a/val2017/1.png", **lists)
    path = written(folder / "a.json", tree)

    def read():
        dataset = data.Lvis(path, folder)
        read_all(lambda: dataset)
        for position in range(min(len(dataset), 20)):
            dataset.absent_at(position), dataset.incomplete_at(position)

    return changed_files(folder, read)


@target("via", quick=150)
def via(folder):
    drawn(folder / "a.png")
    shapes = [
        {"name": "polygon", "all_points_x": [2, 6, 6], "all_points_y": [1, 1, 4]},
        {"name": "rect", "x": 1, "y": 1, "width": 3, "height": 4},
        {"name": "circle", "cx": 4, "cy": 4, "r": 2},
        {"name": "ellipse", "cx": 4, "cy": 4, "rx": 2, "ry": 3, "theta": 0.1},
    ]
    regions = [{"shape_attributes": shape, "region_attributes": {"class": "cat"}} for shape in shapes]
    path = written(folder / "a.json", {"a.png99": {"filename": "a.png", "size": 99, "regions": regions}})
    return changed_files(folder, lambda: read_all(lambda: data.Via(path)))


@target("labelme", quick=150)
def labelme(folder):
    drawn(folder / "a.png")
    shapes = [
        {"label": "cat", "points": [[2, 1], [6, 1], [6, 4]], "group_id": None, "shape_type": "polygon"},
        {"label": "dog", "points": [[1, 1], [4, 5]], "group_id": 1, "shape_type": "rectangle"},
        {"label": "dog", "points": [[4, 4], [6, 4]], "group_id": 1, "shape_type": "circle"},
    ]
    tree = {"version": "5.5.0", "shapes": shapes, "imagePath": "a.png", "imageData": None}
    written(folder / "a.json", {**tree, "imageHeight": 8, "imageWidth": 10})
    return changed_files(folder, lambda: read_all(lambda: data.LabelMe(folder)))


@target("yolo", quick=150)
def yolo(folder):
    for name in ("train", "val"):
        drawn(folder / "images" / name / "a.png")
        written(folder / "labels" / name / "a.txt", "0 0.1 0.1 0.6 0.1 0.6 0.7\n1 0.5 0.5 0.2 0.2\n")
    written(folder / "data.yaml", "path: .\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n")
    bomb = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 'x'}]\n" for i in range(9))

    def change(name, content, rng):
        import changes

        if name == "data.yaml" and rng.random() < 0.2:
            name = rng.choice([*["*a8", "a: !!python/object/apply:os.system [ls] &x [*x]"], "*a8", "[" * 5000])
            return f"{bomb}train: images/train\nnames: {name}\n".encode()
        return changes.by_name(name)(content, rng)

    return changed_files(folder, lambda: [read_all(lambda part=part: part) for part in data.splits(folder)], change)


@target("layouts", quick=60)
def layouts(folder):
    """Exports of annotation tools, whose format is found."""
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
    import annotation_tools

    for name, write in annotation_tools.EXPORTS.items():
        write(folder / name)
    roots = sorted(path for path in folder.iterdir())
    cases = [changed_files(root, lambda root=root: read_all(lambda: data.splits(root)[0], 2)) for root in roots]

    def case(rng):
        if rng is None:
            reads = [each(None) for each in cases]
            return lambda: [read() for read in reads]
        return cases[rng.randrange(len(cases))](rng)

    return case
