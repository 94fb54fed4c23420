"""Data sets whose objects are in mask files: Pascal VOC, Cityscapes, Open Images, mask folders, Penn-Fudan, nuclei."""

import json

import numpy as np
from target import changed_files, drawn, read_all, target, written

from keras_maskrcnn import data

IDS = np.zeros((8, 10), np.uint8)
IDS[1:3, 1:4], IDS[5:7, 5:9] = 1, 2


def load():
    """Imports what the targets need, before memory is limited."""
    import pycocotools.mask

    return pycocotools.mask


@target("voc")
def voc(folder):
    drawn(folder / "JPEGImages" / "a.jpg")
    written(folder / "ImageSets" / "Segmentation" / "train.txt", "a\n")
    for name, values in (("SegmentationObject", IDS), ("SegmentationClass", IDS * 7)):
        drawn(folder / name / "a.png", values=values)
    return changed_files(folder, lambda: read_all(lambda: data.Voc(folder)))


@target("cityscapes", quick=150)
def cityscapes(folder):
    objects = [{"label": label, "polygon": [[1, 1], [6, 1], [6, 6]]} for label in ("road", "car", "cargroup")]
    for name in "ab":
        drawn(folder / "leftImg8bit" / "val" / "ulm" / f"{name}_leftImg8bit.png")
    ids = np.array([[26, 26000, 24001, 7, 0]] * 8, np.uint16).repeat(2, axis=1)
    place = folder / "gtFine" / "val" / "ulm"
    drawn(place / "a_gtFine_instanceIds.png", values=ids)
    written(place / "b_gtFine_polygons.json", {"imgHeight": 8, "imgWidth": 10, "objects": objects})
    return changed_files(folder, lambda: read_all(lambda: data.Cityscapes(folder, "val")))


@target("open_images", quick=150)
def open_images(folder):
    drawn(folder / "0a.jpg")
    drawn(folder / "masks" / "m.png", values=np.ones((16, 20), bool))
    columns = "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks"
    written(folder / "table.csv", f"{columns}\nm.png,0a,/m/0cat,b,0,1,0,1,0.8,0.1 0.2 1\n")
    written(folder / "names.csv", "/m/0cat,Cat\n")
    places = [folder / name for name in ("table.csv", ".", "masks", "names.csv")]
    return changed_files(folder, lambda: read_all(lambda: data.OpenImages(*places)))


@target("mask_folder")
def mask_folder(folder):
    for name in "ab":
        drawn(folder / "images" / f"{name}.png")
    for name in ("a", "b/0"):
        drawn(folder / "masks" / f"{name}.png", values=IDS)
    return changed_files(folder, lambda: read_all(lambda: data.MaskFolder(folder / "images", folder / "masks")))


@target("penn_fudan")
def penn_fudan(folder):
    drawn(folder / "PNGImages" / "a.png")
    drawn(folder / "PedMasks" / "a_mask.png", values=IDS)
    written(folder / "train.txt", "a\n")
    return changed_files(folder, lambda: read_all(lambda: data.PennFudan(folder)))


@target("nuclei")
def nuclei(folder):
    place = folder / "stage1_train"
    for name in "ab":
        drawn(place / name / "images" / f"{name}.png")
    drawn(place / "a" / "mask_ids" / "a.png", values=IDS)
    drawn(place / "b" / "masks" / "0.png", values=IDS * 255)
    written(folder / "train.txt", "a\nb\n")
    return changed_files(folder, lambda: read_all(lambda: data.Nuclei(folder)))


@target("label_map", quick=50)
def label_map(folder):
    """`data.semantic` of instances whose label maps are other maps' sizes: Label maps beside mask folders."""
    from keras_maskrcnn.data.tf_messages import read_label_map

    path = written(folder / "label_map.pbtxt", "".join(
        f"item {{\n  id: {number}\n  name: {json.dumps(name)}\n}}\n" for number, name in enumerate(("cat", "dog"), 1)
    ))  # fmt: skip
    return changed_files(folder, lambda: read_label_map(path))
