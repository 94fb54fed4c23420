"""Readers on files with random changes: nothing but DataError, no crash, little memory.

The file is also the program that the test starts, because a fault may end the process.
"""

import copy
import json
import pathlib
import random
import resource
import subprocess
import sys

import h5py
import numpy as np
from PIL import Image

from keras_maskrcnn import data
from keras_maskrcnn.data import cis680

MEMORY = 2 * 2**30  # bytes of address space
PEAK = 400_000  # KB of memory in use; 80,000 without any file
ROUNDS = {"cis680": 250, "coco": 400, "images": 250, "penn_fudan": 150}
ROUNDS |= {"keypoints": 200, "lvis": 100, "cityscapes": 200, "open_images": 150, "mask_folder": 100}
NUMBERS = -1, 0, 1, 7, 2**31, 2**63, 10**400, 1e300, -1e8, float("nan"), float("inf")
LISTS = [], [None], [[]], [[1] * 6], [[1e9] * 8], [0, 0, 1e7, 1e7]
VALUES = (None, True, *NUMBERS, "", "0", "../a", "\ud800", {}, {"size": [8, 10], "counts": "9"}, *LISTS)


def changed(content, rng):
    """Bytes with a few of them replaced, cut out, repeated or inserted."""
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5])):
        place, kind = rng.randrange(len(content)), rng.randrange(6)
        if kind <= 2:
            content[place] = rng.choice([0, 1, 127, 128, 255, content[place] ^ 1 << rng.randrange(8)])
        elif kind == 3:
            content[place : place + rng.choice([1, 4, 8])] = rng.randbytes(4)
        elif kind == 4:
            del content[place : place + rng.choice([1, 8, 1000])]
        else:
            content[place:place] = content[place : place + 16]
        content = content or bytearray(b"\0")
    return bytes(content)


def changed_tree(tree, rng):
    """A JSON structure with a few of its values replaced or removed."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice([1, 1, 2, 3])):
        node = tree["annotations"] if rng.random() < 0.7 and isinstance(tree.get("annotations"), list) else tree
        while True:
            keys = list(node) if isinstance(node, dict) else range(len(node))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(node[key], dict | list) and rng.random() < 0.8:
                node = node[key]
                continue
            if rng.random() < 0.1:
                del node[key]
            else:
                node[key] = copy.deepcopy(rng.choice(VALUES))
            break
    return tree


def attempts(kind, folder, rng):
    """Yields functions that read a file after each change."""
    folder = folder / kind
    folder.mkdir()
    return globals()[f"attempts_{kind}"](folder, rng)


def attempts_cis680(folder, rng):
    boxes, labels = np.empty(2, object), np.empty(2, object)
    boxes[:] = [np.array([[0, 0, 4, 4], [2, 2, 6, 6]], np.float32), np.array([[1, 1, 5, 5]], np.float32)]
    labels[:] = [np.array([1, 2]), np.array([3])]
    arrays = {
        "images": np.arange(2 * 3 * 48).reshape(2, 3, 6, 8).astype(np.uint8),
        "masks": np.ones((3, 6, 8), np.uint8),
    }
    for name, values in arrays.items():
        with h5py.File(folder / cis680.FILES[name], "w") as file:
            file.create_dataset("data", data=values, compression="gzip", chunks=(1, *values.shape[1:]))
    np.save(folder / cis680.FILES["boxes"], boxes, allow_pickle=True)
    np.save(folder / cis680.FILES["labels"], labels, allow_pickle=True)
    contents = {name: (folder / name).read_bytes() for name in cis680.FILES.values()}
    while True:
        name = rng.choice(list(contents))
        (folder / name).write_bytes(changed(contents[name], rng))
        yield lambda: list(data.Cis680(folder))
        (folder / name).write_bytes(contents[name])


def attempts_coco(folder, rng):
    Image.new("RGB", (10, 8), (9, 90, 200)).save(folder / "one.png")
    common = {"image_id": 0, "category_id": 3, "bbox": [2, 1, 4, 3], "area": 12, "iscrowd": 0}
    masks = [[2, 1, 6, 1, 6, 4, 2, 4]], {"counts": [9, 3, 68], "size": [8, 10]}, {"counts": "93T2", "size": [8, 10]}
    tree = {
        "images": [{"id": 0, "file_name": "one.png", "height": 8, "width": 10}],
        "categories": [{"id": 7, "name": "ant"}, {"id": 3, "name": "zebra"}],
        "annotations": [{"id": index, **common, "segmentation": mask} for index, mask in enumerate(masks)],
    }
    while True:
        text = json.dumps(changed_tree(tree, rng)).encode()
        (folder / "a.json").write_bytes(changed(text, rng) if rng.random() < 0.3 else text)
        yield lambda: list(data.Coco(folder / "a.json", folder))


def attempts_images(folder, rng):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 4), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    saved = [(mode, kind) for mode in ("RGB", "L") for kind in ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "PPM")]
    contents = []
    for mode, kind in [*saved, ("RGBA", "PNG"), ("P", "PNG"), ("I;16", "PNG"), ("CMYK", "JPEG"), ("1", "TIFF")]:
        image = Image.fromarray(pixels)
        image = (
            Image.fromarray(pixels[..., 0].astype(np.uint16)) if mode == "I;16" else image.convert("RGB").convert(mode)
        )
        image.save(folder / "a", kind, **({"exif": exif} if kind in ("PNG", "JPEG", "WEBP") else {}))
        contents.append((folder / "a").read_bytes())
    while True:
        (folder / "a").write_bytes(changed(rng.choice(contents), rng))
        yield lambda: [data.read_image(folder / "a", turn) for turn in (True, False)]


def attempts_penn_fudan(folder, rng):
    for name in ("PNGImages", "PedMasks"):
        (folder / name).mkdir()
    ids = np.zeros((5, 6), np.uint8)
    ids[1:3, 1:4] = 1
    Image.new("RGB", (6, 5), (1, 2, 3)).save(folder / "PNGImages" / "a.png")
    Image.fromarray(ids).save(folder / "PedMasks" / "a_mask.png")
    (folder / "train.txt").write_text("a\n")
    return changed_files(folder, rng, lambda: list(data.PennFudan(folder)))


def changed_files(folder, rng, read):
    """Yields `read` after each change of one of the files in a folder."""
    contents = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    while True:
        path = rng.choice(list(contents))
        if path.suffix == ".json" and rng.random() < 0.8:
            path.write_text(json.dumps(changed_tree(json.loads(contents[path]), rng)))
        else:
            path.write_bytes(changed(contents[path], rng))
        yield read
        path.write_bytes(contents[path])


def attempts_keypoints(folder, rng):
    Image.new("RGB", (10, 8)).save(folder / "one.png")
    common = {"image_id": 0, "category_id": 3, "segmentation": [[2, 1, 6, 1, 6, 4, 2, 4]]}
    points = [[1, 2, 2, 3, 4, 1], [0] * 6]
    tree = {
        "images": [{"id": 0, "file_name": "one.png", "height": 8, "width": 10}],
        "categories": [{"id": 3, "name": "person", "keypoints": ["left", "right"]}],
        "annotations": [{"id": index, **common, "keypoints": row} for index, row in enumerate(points)],
    }
    (folder / "a.json").write_text(json.dumps(tree))
    return changed_files(folder, rng, lambda: list(data.Coco(folder / "a.json", folder, keypoints=True)))


def attempts_lvis(folder, rng):
    (folder / "val2017").mkdir()
    Image.new("RGB", (10, 8)).save(folder / "val2017" / "1.png")
    lists = {"neg_category_ids": [3], "not_exhaustive_category_ids": []}
    tree = {
        "images": [{"id": 0, "coco_url": "http://a/val2017/1.png", "height": 8, "width": 10, **lists}],
        "categories": [{"id": 3, "name": "zebra"}],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 3, "segmentation": [[2, 1, 6, 1, 6, 4, 2, 4]]}],
    }
    (folder / "a.json").write_text(json.dumps(tree))
    return changed_files(folder, rng, lambda: list(data.Lvis(folder / "a.json", folder)))


def attempts_cityscapes(folder, rng):
    for name in ("leftImg8bit", "gtFine"):
        (folder / name / "val" / "ulm").mkdir(parents=True)
    objects = [{"label": label, "polygon": [[1, 1], [6, 1], [6, 6]]} for label in ("road", "car", "cargroup")]
    for name in "ab":
        Image.new("RGB", (10, 8)).save(folder / "leftImg8bit" / "val" / "ulm" / f"{name}_leftImg8bit.png")
    ids = np.array([[26, 26000, 24001, 7, 0]] * 8, np.uint16).repeat(2, axis=1)
    Image.fromarray(ids).save(folder / "gtFine" / "val" / "ulm" / "a_gtFine_instanceIds.png")
    text = json.dumps({"imgHeight": 8, "imgWidth": 10, "objects": objects})
    (folder / "gtFine" / "val" / "ulm" / "b_gtFine_polygons.json").write_text(text)

    return changed_files(folder, rng, lambda: list(data.Cityscapes(folder, "val")))


def attempts_open_images(folder, rng):
    (folder / "masks").mkdir()
    Image.new("RGB", (10, 8)).save(folder / "0a.jpg")
    Image.fromarray(np.ones((16, 20), bool)).save(folder / "masks" / "m.png")
    columns = "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks"
    (folder / "table.csv").write_text(f"{columns}\nm.png,0a,/m/0cat,b,0,1,0,1,0.8,0.1 0.2 1\n")
    (folder / "names.csv").write_text("/m/0cat,Cat\n")
    places = [folder / name for name in ("table.csv", ".", "masks", "names.csv")]
    return changed_files(folder, rng, lambda: list(data.OpenImages(*places)))


def attempts_mask_folder(folder, rng):
    for name in ("images", "masks/b"):
        (folder / name).mkdir(parents=True)
    for name in "ab":
        Image.new("RGB", (6, 5)).save(folder / "images" / f"{name}.png")
    for name in ("a", "b/0"):
        Image.fromarray(np.eye(5, 6, dtype=np.uint8)).save(folder / "masks" / f"{name}.png")
    return changed_files(folder, rng, lambda: list(data.MaskFolder(folder / "images", folder / "masks")))


def main(folder, seed):
    """Prints each fault on a line, then how many changed files were read and refused."""
    for kind, count in ROUNDS.items():
        rng, outcomes = random.Random(f"{kind} {seed}"), []
        for number, read in zip(range(count), attempts(kind, folder, rng), strict=False):
            try:
                read()
                outcomes.append("read")
            except data.DataError as error:
                outcomes.append("refused")
                if "\n" in str(error) or len(str(error)) > 1000:
                    print(f"FAULT {kind} {number}: a message of {len(str(error))} characters")
                str(error).encode()
            except BaseException as error:
                print(f"FAULT {kind} {number}: {error!r}")
        print(kind, outcomes.count("read"), outcomes.count("refused"), file=sys.stderr)
    status = pathlib.Path("/proc/self/status").read_text()
    print("end", status.split("VmHWM:")[1].split()[0])  # of this program; ru_maxrss includes that of its parent


def test_changed_files_raise_at_most_a_data_error(tmp_path):
    done = subprocess.run(
        [sys.executable, __file__, tmp_path, "0"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
    )
    *faults, end = done.stdout.splitlines() or [""]
    assert done.returncode == 0 and not faults, (done.returncode, faults[:5], done.stderr[-500:])
    assert int(end.removeprefix("end ")) < PEAK


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
