import concurrent.futures
import gzip
import pickle
import struct
import sys

import numpy as np
import pytest

from keras_maskrcnn import data
from keras_maskrcnn.data import digits, idx

KEYS = ("image", "boxes", "labels", "masks", "semantic")


def encoded(array, kind=8):
    """The bytes of an IDX file."""
    header = bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def mnist(tmp_path):
    """Files as those of MNIST: 50 images in which digit d is a bar of 20 × (2 + d) pixels; returns the images' path."""
    labels = np.arange(50) % 10
    images = np.zeros((50, 28, 28), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4:24, 8 : 10 + label] = 255
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(encoded(images)))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(encoded(labels)))
    return path


@pytest.fixture
def squares(tmp_path):
    """Two plain files of two full squares, the digits 3 and 7; returns both paths."""
    paths = tmp_path / "pixels.idx", tmp_path / "classes.idx"
    for path, array in zip(paths, (np.full((2, 8, 8), 255), np.array([3, 7])), strict=True):
        path.write_bytes(encoded(array))
    return paths


def same(one, other):
    return all(np.array_equal(one[key], other[key]) for key in KEYS)


def test_an_image_depends_on_seed_and_index_alone(mnist):
    found = data.Digits(5, seed=3, source=mnist)
    last = found[4]
    assert same(last, data.Digits(50, seed=3, source=str(mnist))[4]) and same(last, found[-1])
    assert not same(last, found[3]) and not same(last, data.Digits(5, seed=4, source=mnist)[4])
    assert last["source"] == "Digits(seed=3)[4]"


def test_threads_and_other_processes_draw_the_same(mnist):
    found = data.Digits(12, (64, 64), source=mnist, digit_size=(16, 30))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(found.__getitem__, range(12)))
    copy = pickle.loads(pickle.dumps(found))
    assert all(same(drawn[index], copy[index]) for index in range(12))


def test_masks_boxes_labels_and_map_agree_where_digits_hide_one_another(mnist):
    found = data.Digits(30, (64, 80), source=mnist, digits=(0, 6), digit_size=(20, 40), rotation=90, overlap=1)
    hidden = 0
    for sample in found:
        masks, labels = sample["masks"], sample["labels"]
        assert sample["image"].shape == (64, 80, 3) and masks.sum(0).max(initial=0) <= 1
        np.testing.assert_array_equal(sample["semantic"], (masks * labels[:, None, None]).sum(0))
        np.testing.assert_array_equal(sample["boxes"], data.mask_boxes(masks))
        hidden += (masks.sum((1, 2)) < 0.9 * np.median(masks.sum((1, 2)), axis=-1)).sum() if len(masks) else 0
    assert {len(sample["labels"]) for sample in found} == set(range(7)) and hidden > 5
    assert found.fields[0].class_names == ("background", *"0123456789") and found.class_names == list("0123456789")


def test_a_square_has_the_size_and_the_colours_that_were_asked_for(squares):
    options = {"digits": (1, 1), "digit_size": (24, 24), "rotation": 0, "noise": (0, 0), "colour": False}
    sample = data.Digits(1, source=squares, **options)[0]
    [box], [mask] = sample["boxes"], sample["masks"]
    # The square has 8 pixels of 3; its edge is where the ink is 0.4, a tenth or so of 3 pixels outside.
    assert 24 <= box[2] - box[0] <= 26 and mask.sum() >= 0.97 * (box[2] - box[0]) ** 2
    assert sample["labels"][0] - 1 in (3, 7) and sample["semantic"].max() == sample["labels"][0]
    assert sample["image"][mask].mean() > 240 and (sample["image"][~mask] < 128).all()
    x, y = (box[:2] + 12).astype(int)
    assert (sample["image"][y, x] == 255).all() and (sample["image"][0, 0] == 0).all()


def test_a_quarter_turn_exchanges_the_sides_of_a_bar(mnist):
    options = {"source": mnist, "digits": (1, 1), "digit_size": (40, 40), "noise": (0, 0)}
    for angle in (0, 90):
        share = digits._coverage(data.Digits(1, **options).singles[0], 40, angle)
        sides = (share >= 0.5).any(1).sum(), (share >= 0.5).any(0).sum()
        assert sorted(sides) == pytest.approx([4, 40], abs=1.5) and (sides[0] > sides[1]) == (angle == 0)


@pytest.mark.parametrize("overlap", [0, 0.3])
def test_boxes_overlap_no_more_than_allowed(overlap, mnist):
    shares = []
    for sample in data.Digits(40, source=mnist, digits=(5, 8), overlap=overlap, rotation=0):
        boxes = sample["boxes"]
        for one, other in zip(*np.triu_indices(len(boxes), 1), strict=True):
            low, high = np.maximum(boxes[one, :2], boxes[other, :2]), np.minimum(boxes[one, 2:], boxes[other, 2:])
            areas = [np.prod(boxes[index, 2:] - boxes[index, :2]) for index in (one, other)]
            shares.append(np.prod(np.maximum(high - low, 0)) / min(areas))
    assert max(shares) == 0 if overlap == 0 else 0.1 < max(shares) < overlap + 0.15  # boxes of visible parts are less


def test_splits_have_no_digit_in_common_and_all_classes():
    pytest.importorskip("sklearn")
    everything, train, val = (data.Digits(1, split=split) for split in (None, "train", "val"))
    assert len(everything.singles) == 1797 == len(train.singles) + len(val.singles)
    assert np.bincount(val.single_labels).tolist() == [count // 5 for count in np.bincount(everything.single_labels)]
    pools = [{(each.shape, each.tobytes()) for each in part.singles} for part in (train, val)]
    assert len(pools[0] & pools[1]) <= 2  # equal images of different writers


def test_digits_differ_from_the_background(mnist):
    for sample in data.Digits(40, source=mnist, digits=(1, 1), noise=(0, 0)):
        inside, outside = (sample["image"][sample["semantic"] > 0], sample["image"][sample["semantic"] == 0])
        assert np.linalg.norm(inside.mean(0) - outside.mean(0)) > 60


def test_batches_hold_boxes_masks_and_the_map(mnist):
    found = data.Digits(4, (64, 64), source=mnist, digit_size=(16, 30))
    inputs, targets = data.batches(found, (64, 64), 2, backend="numpy")[0]
    assert inputs["images"].shape == (2, 64, 64, 3)
    np.testing.assert_array_equal(targets["semantic"][1], found[1]["semantic"])
    assert targets["valid"].sum(1).tolist() == [len(found[index]["labels"]) for index in (0, 1)]


def test_images_without_ink_are_left_out_and_others_cropped(tmp_path):
    images = np.zeros((3, 8, 8), np.uint8)
    images[1, 2:5, 3] = 255
    images[2, 0, 0] = 90  # less than LEVEL
    paths = tmp_path / "a", tmp_path / "b"
    for path, array in zip(paths, (images, np.array([1, 2, 3])), strict=True):
        path.write_bytes(encoded(array))
    found = data.Digits(1, source=paths)
    assert [each.shape for each in found.singles] == [(3, 1)] and found.single_labels.tolist() == [2]
    with pytest.raises(data.DataError, match="has no digits for the split 'val'"):
        data.Digits(1, source=paths, split="val")


def test_files_are_read_plain_and_compressed(mnist, squares):
    images, labels = idx.read_mnist(mnist)
    assert images.shape == (50, 28, 28) and images.dtype == np.uint8 and labels.tolist()[:12] == [*range(10), 0, 1]
    assert images[3].sum() == 255 * 20 * 5
    assert idx.read_mnist(*squares)[1].tolist() == [3, 7]


DAMAGED = {
    "is not an IDX file": b"PNG",
    "holds numbers of the type 0x0d, not unsigned bytes": encoded(np.zeros((1, 2, 2)), kind=13),
    "has 2 axes, not 3": encoded(np.zeros((2, 2))),
    "ends within its header": encoded(np.zeros((1, 2, 2)))[:9],
    "has fewer bytes than the 4 of its header's": encoded(np.zeros((1, 2, 2)))[:-1],
    "has more bytes than the 4 of its header's": encoded(np.zeros((1, 2, 2))) + b"\0",
    "more than keras_maskrcnn.data.idx.MAX_BYTES": bytes([0, 0, 8, 3]) + b"\xff" * 12,
    "is damaged": gzip.compress(encoded(np.zeros((1, 2, 2))))[:-12],
    "cannot be read": b"\x1f\x8b no gzip",
}


@pytest.mark.parametrize("reason", DAMAGED)
def test_a_damaged_file_is_named_in_one_line(reason, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(DAMAGED[reason])
    with pytest.raises(data.DataError) as caught:
        idx.read_idx(path, 3)
    assert reason in str(caught.value) and str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_labels_must_fit(tmp_path, mnist, squares):
    with pytest.raises(data.DataError, match=r"missing: cannot be read \(No such file"):
        idx.read_idx(tmp_path / "missing", 3)
    with pytest.raises(data.DataError, match='no "images" that leads to its labels'):
        data.Digits(1, source=squares[0])
    with pytest.raises(data.DataError, match="has 2 labels for the 50 images"):
        data.Digits(1, source=(mnist, squares[1]))
    squares[1].write_bytes(encoded(np.array([3, 10])))
    with pytest.raises(data.DataError, match="has the label 10, digits have 0 to 9"):
        data.Digits(1, source=squares)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"split": "test"}, "split='test' is not one of"),
        ({"digits": (3, 1)}, r"digits=\(3, 1\) must be"),
        ({"digit_size": (0, 9)}, r"digit_size=\(0, 9\) must be two numbers of at least 1"),
        ({"overlap": 1.5}, "overlap=1.5 must be a share"),
    ],
)
def test_bad_options_are_named(options, reason):
    with pytest.raises(ValueError, match=reason):
        data.Digits(1, **options)


def test_without_scikit_learn_the_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    digits._singles.cache_clear()
    with pytest.raises(data.DataError, match=r'scikit-learn: pip install "keras3-maskrcnn\[digits\]"'):
        data.Digits(1)
