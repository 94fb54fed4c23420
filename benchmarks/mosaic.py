"""Counts in a mosaic of nuclei images that is detected in by tiles, against the counts in its parts.

    python benchmarks/mosaic.py --data NUCLEI --output benchmarks/results/mosaic.json

The parts are the validation images of 256x256 pixels, whole, in their eight orientations, in an order that a seed
decides. "own levels": the grey levels of each part are stretched as those of an image are, as if the mosaic came from
one exposure; "levels of the mosaic": the parts keep their own exposure, and the mosaic is stretched as one image.
"""

import argparse
import pathlib
import time

import machine
import numpy as np
import pairs
import reports

PART = 256
LIMIT = 100_000


def parts(folder, count, seed=0):
    """That many images uint8 [256, 256, 3], no orientation of an image twice before all have been used."""
    from keras_maskrcnn import data

    dataset = data.Nuclei(folder, split="val")
    whole = [sample["image"] for sample in map(dataset.read, range(len(dataset)))]
    whole = [image for image in whole if image.shape[:2] == (PART, PART)]
    order = np.random.default_rng(seed).permutation(8 * len(whole))
    turned = (oriented(whole[i % len(whole)], i // len(whole)) for i in np.resize(order, count))
    return list(turned)


def oriented(image, way):
    """The image in one of its eight orientations."""
    image = image[:, ::-1] if way >= 4 else image
    return np.ascontiguousarray(np.rot90(image, way % 4))


def assembled(images):
    """The images in a square, row by row."""
    side = round(len(images) ** 0.5)
    return np.concatenate([np.concatenate(images[row * side : (row + 1) * side], axis=1) for row in range(side)])


def detected(model, mosaic, tiles, overlap):
    """Detections in a mosaic, and the seconds that they took."""
    start = time.perf_counter()
    found = model.detect(mosaic, tiles=tiles, overlap=overlap, max_detections=LIMIT, masks="cropped")
    return found, time.perf_counter() - start


def measure(options):
    """Counts, times and memory: the dict for the JSON file."""
    from keras_maskrcnn import MaskRCNN, data

    images = parts(options.data, (options.side // PART) ** 2)
    model, plain = MaskRCNN.from_preset("nuclei"), MaskRCNN.from_preset("nuclei", stretch=None)
    alone = sum(len(found["scores"]) for found in model.detect_each(images, max_detections=LIMIT, masks="cropped"))
    stretched = [data.stretch(image, model.stretch) for image in images]
    report = {**reports.header("mosaic.py"), "side": options.side, "tiles": options.tiles, "overlap": options.overlap}
    report |= {"parts": len(images), "alone": alone}
    for name, network, pictures in (("own levels", plain, stretched), ("levels of the mosaic", model, images)):
        found, seconds = detected(network, assembled(pictures), tuple(options.tiles), options.overlap)
        count = len(found["scores"])
        report[name] = {"count": count, "ratio": round(count / alone, 4), "seconds": round(seconds, 1)}
        print(f"{name}: {count} of {alone}, {count / alone:.1%}, {seconds:.0f} s", flush=True)
    return {**report, "mask_bytes": found["masks"].nbytes, "process_mb": machine.peak_memory()}


def main():
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=pathlib.Path, required=True, help="folder of the nuclei data set, see data.Nuclei")
    add("--side", type=pairs.positive, default=4096, help="of the mosaic in pixels (default: %(default)s)")
    add("--tiles", type=pairs.positive, nargs=2, default=[512, 512], help="height and width (default: 512 512)")
    add("--overlap", type=int, default=96, help="pixels that neighbouring tiles share (default: %(default)s)")
    add("--output", type=pathlib.Path, metavar="FILE", help="write the figures as JSON")
    options = parser.parse_args()
    report = measure(options)
    print(f"peak memory of the process: {report['process_mb']} MB, masks: {report['mask_bytes'] / 1e6:.1f} MB")
    reports.write(options.output, report)


if __name__ == "__main__":
    main()
