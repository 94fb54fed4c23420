"""The 80 object categories of COCO, by the category ids of its annotation files.

Ten ids between 1 and 90 belong to categories that COCO's detection task does not use. torchvision's weights have one
class per id (90 classes); detectron2's and matterport's have the 80 classes in the same order without gaps.

Source: `categories` of annotations/instances_val2017.json (https://cocodataset.org); torchvision lists them in
torchvision/models/_meta.py, detectron2 in detectron2/data/datasets/builtin_meta.py.
"""

# fmt: off
CATEGORIES = {
    1: "person",
    2: "bicycle", 3: "car", 4: "motorcycle", 5: "airplane", 6: "bus", 7: "train", 8: "truck", 9: "boat",
    10: "traffic light", 11: "fire hydrant", 13: "stop sign", 14: "parking meter", 15: "bench",
    16: "bird", 17: "cat", 18: "dog", 19: "horse", 20: "sheep", 21: "cow", 22: "elephant", 23: "bear", 24: "zebra",
    25: "giraffe",
    27: "backpack", 28: "umbrella", 31: "handbag", 32: "tie", 33: "suitcase",
    34: "frisbee", 35: "skis", 36: "snowboard", 37: "sports ball", 38: "kite", 39: "baseball bat",
    40: "baseball glove", 41: "skateboard", 42: "surfboard", 43: "tennis racket",
    44: "bottle", 46: "wine glass", 47: "cup", 48: "fork", 49: "knife", 50: "spoon", 51: "bowl",
    52: "banana", 53: "apple", 54: "sandwich", 55: "orange", 56: "broccoli", 57: "carrot", 58: "hot dog", 59: "pizza",
    60: "donut", 61: "cake",
    62: "chair", 63: "couch", 64: "potted plant", 65: "bed", 67: "dining table", 70: "toilet",
    72: "tv", 73: "laptop", 74: "mouse", 75: "remote", 76: "keyboard", 77: "cell phone",
    78: "microwave", 79: "oven", 80: "toaster", 81: "sink", 82: "refrigerator",
    84: "book", 85: "clock", 86: "vase", 87: "scissors", 88: "teddy bear", 89: "hair drier", 90: "toothbrush",
}
# fmt: on
LAYOUTS = (80, 90)
BACKGROUND = ("bg", "background")  # names of class 0 in other libraries, which list it


def is_background(name):
    """Whether a class name, such as "BG" or "_background_", is one that other tools give to background."""
    return name.strip("_ ").lower() in BACKGROUND


def coco_names(num_classes=80):
    """Returns class names for a model of COCO's classes; class k is the entry k - 1.

    Args:
        num_classes: 80 without gaps, or 90, where class k is the category with id k and unused ids get names such as
            "unused 12".

    Returns:
        List of `num_classes` str.

    Raises:
        ValueError: `num_classes` has another value.
    """
    if num_classes not in LAYOUTS:
        raise ValueError(f"COCO has 80 classes, or 90 with the unused ones, not {num_classes}")
    if num_classes == len(CATEGORIES):
        return list(CATEGORIES.values())
    return [CATEGORIES.get(number, f"unused {number}") for number in range(1, num_classes + 1)]
