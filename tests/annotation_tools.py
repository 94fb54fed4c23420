"""Exports of annotation tools as these write them: files, folders, keys and file names, with pictures of shapes.

Each function writes one export into a folder; `EXPORTS` has those of docs/your_data.md, by the names of the folders.
"""

import csv
import json

from PIL import Image

from keras_maskrcnn.data import Shapes
from keras_maskrcnn.data.rings import rings

CLASSES = ["circle", "square", "triangle"]
COUNT, SIDE = 6, 64


def drawn():
    """Samples with one object each."""
    return Shapes(COUNT, image_size=(SIDE, SIDE), seed=3, objects=(1, 1), object_size=(20, 40))


def shapes(positions=range(COUNT)):
    """Yields (position, image, name of the class, corners [k, 2] of the polygon) of each object."""
    samples = drawn()
    for position in positions:
        sample = samples[position]
        (ring,) = rings(sample["masks"][0])
        yield position, Image.fromarray(sample["image"]), CLASSES[sample["labels"][0] - 1], ring


def save(image, path):
    """Saves a picture; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def write_json(path, content):
    """Writes JSON; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def coco(positions, file_name, categories, start=1):
    """Content of a COCO file; `file_name` is a function of a position, ids start at `start`."""
    content = {"images": [], "annotations": [], "categories": categories}
    ids = {category["name"]: category["id"] for category in categories}
    for count, (position, _, name, ring) in enumerate(shapes(positions), start):
        (x, y), (right, bottom) = ring.min(axis=0).tolist(), ring.max(axis=0).tolist()
        content["images"].append({"id": count, "file_name": file_name(position), "height": SIDE, "width": SIDE})
        content["annotations"].append({
            "id": count,
            "image_id": count,
            "category_id": ids[name],
            "segmentation": [ring.ravel().astype(float).tolist()],
            "bbox": [x, y, right - x, bottom - y],
            "area": (right - x) * (bottom - y),
            "iscrowd": 0,
        })  # fmt: skip
    return content


def via(folder, name="via_export_json.json", positions=range(COUNT)):
    """VIA 2, Annotation, Export Annotations (as json); the pictures are the user's own."""
    entries = {}
    for position, image, label, ring in shapes(positions):
        path = folder / f"photo{position}.png"
        save(image, path)
        x, y = ring.T.tolist()
        shape = {"name": "polygon", "all_points_x": x, "all_points_y": y}
        region = {"shape_attributes": shape, "region_attributes": {"class": label}}
        size = path.stat().st_size
        entries[f"{path.name}{size}"] = {
            "filename": path.name,
            "size": size,
            "regions": [region],
            "file_attributes": {},
        }
    write_json(folder / name, entries)


def labelme(folder):
    """LabelMe: a JSON file next to each picture."""
    for position, image, label, ring in shapes():
        save(image, folder / f"photo{position}.png")
        shape = {"label": label, "points": ring.astype(float).tolist(), "group_id": None, "shape_type": "polygon"}
        content = {"version": "5.5.0", "flags": {}, "shapes": [{**shape, "flags": {}, "description": ""}]}
        content |= {"imagePath": f"photo{position}.png", "imageData": None, "imageHeight": SIDE, "imageWidth": SIDE}
        write_json(folder / f"photo{position}.json", content)


def cvat(folder, subsets=(("default", range(COUNT)),), merged=False):
    """CVAT, COCO 1.0 with images, of the subsets of a project; merged: as older versions lay the pictures."""
    for subset, positions in subsets:
        categories = [{"id": 1 + i, "name": name, "supercategory": ""} for i, name in enumerate(CLASSES)]
        content = coco(positions, "photo{}.png".format, categories)
        content |= {"licenses": [{"name": "", "id": 0, "url": ""}], "info": {"contributor": "", "description": ""}}
        write_json(folder / "annotations" / f"instances_{subset}.json", content)
        for position, image, *_ in shapes(positions):
            save(image, folder / "images" / ("" if merged else subset) / f"photo{position}.png")


def label_studio(folder, file_name="images/{}"):
    """Label Studio, COCO with Images; `file_name` differs between its versions and systems."""
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES)]
    content = coco(range(COUNT), lambda i: file_name.format(f"ab12cd3{i}-photo{i}.png"), categories, start=0)
    write_json(folder / "result.json", {**content, "info": {"year": 2026, "contributor": "Label Studio"}})
    for position, image, *_ in shapes():
        save(image, folder / "images" / f"ab12cd3{position}-photo{position}.png")


def label_studio_yolo(folder):
    """Label Studio, YOLO with Images."""
    yolo_files(folder / "images", folder / "labels", range(COUNT))
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES)]
    write_json(folder / "notes.json", {"categories": categories, "info": {"contributor": "Label Studio"}})


def roboflow(folder):
    """Roboflow, COCO Segmentation; category 0 is a root that no object has."""
    categories = [{"id": 0, "name": "objects", "supercategory": "none"}]
    categories += [{"id": 1 + i, "name": name, "supercategory": "objects"} for i, name in enumerate(CLASSES)]
    for split, positions in (("train", range(4)), ("valid", range(4, 5)), ("test", range(5, 6))):
        content = coco(positions, "photo{0}_png.rf.{0}.png".format, categories, start=0)
        content |= {"info": {"year": "2026"}, "licenses": [{"id": 1, "url": "", "name": "CC BY 4.0"}]}
        write_json(folder / split / "_annotations.coco.json", content)
        for position, image, *_ in shapes(positions):
            save(image, folder / split / f"photo{position}_png.rf.{position}.png")
    (folder / "README.roboflow.txt").write_text("")


def roboflow_yolo(folder):
    """Roboflow, YOLOv8."""
    for split, positions in (("train", range(4)), ("valid", range(4, 6))):
        yolo_files(folder / split / "images", folder / split / "labels", positions)
    text = f"train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 3\nnames: {CLASSES}\n"
    (folder / "data.yaml").write_text(text)


def yolo(folder):
    """Ultralytics' own layout."""
    for split, positions in (("train", range(4)), ("val", range(4, 6))):
        yolo_files(folder / "images" / split, folder / "labels" / split, positions)
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(CLASSES))
    (folder / "data.yaml").write_text(f"path: /home/me/yolo\ntrain: images/train\nval: images/val\nnames:\n{names}")


def cvat_yolo(folder):
    """CVAT, Ultralytics YOLO Segmentation 1.0: `data.yaml` names a list of pictures."""
    yolo_files(folder / "images" / "train", folder / "labels" / "train", range(COUNT))
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(CLASSES))
    (folder / "data.yaml").write_text(f"path: .\ntrain: train.txt\nnames:\n{names}")
    (folder / "train.txt").write_text("".join(f"images/train/photo{i}.png\n" for i in range(COUNT)))


def yolo_files(images, labels, positions):
    """Pictures, and a label file for each."""
    labels.mkdir(parents=True)
    for position, image, name, ring in shapes(positions):
        save(image, images / f"photo{position}.png")
        words = [str(CLASSES.index(name)), *(f"{share:.8g}" for share in (ring / SIDE).ravel())]
        (labels / f"photo{position}.txt").write_text(" ".join(words) + "\n")


def own(folder):
    """Two COCO files of one's own, named after their sets, with one folder of images."""
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES)]
    for split, positions in (("train", range(4)), ("val", range(4, 6))):
        write_json(folder / f"{split}.json", coco(positions, lambda i: f"photo{i}.png", categories))
        for position, image, *_ in shapes(positions):
            save(image, folder / "images" / f"photo{position}.png")


def mask_files(folder):
    """Ids of one object in each mask, in a folder for each class."""
    for position, (sample, (_, image, name, _)) in enumerate(zip(drawn(), shapes(), strict=True)):
        save(image, folder / "images" / f"photo{position}.png")
        save(Image.fromarray(sample["masks"][0].astype("uint8")), folder / "masks" / name / f"photo{position}.png")


def cells(folder):
    """Pictures with ellipses in CSV files, which no reader of the package knows."""
    for position, image, _, ring in shapes():
        save(image, folder / f"{position}.png")
        (cx, cy), (rx, ry) = ring.mean(axis=0), (ring.max(axis=0) - ring.min(axis=0)) / 2
        with open(folder / f"{position}.csv", "w", newline="") as file:
            csv.writer(file).writerow([("round", "long")[position % 2], cx, cy, rx, ry])


EXPORTS = {
    "own": own,
    "mask_files": mask_files,
    "via": via,
    "labelme": labelme,
    "cvat": cvat,
    "label_studio": label_studio,
    "roboflow": roboflow,
    "yolo": yolo,
}


def write_all(root):
    """Writes all folders that docs/your_data.md names; `mine` is one of the exports."""
    for name, write in {**EXPORTS, "mine": roboflow, "cells": cells}.items():
        write(root / name)
