"""Uses every dependency of the installed package once; run as a program in an environment of its own.

    python tests/smoke.py FOLDER [PART …]

It trains, scores, draws, saves, loads and exports a tiny model with the base dependencies, and reads or writes a file
with the dependencies of each optional extra that concerns data or weights.
"""

import contextlib
import pathlib
import re
import subprocess
import sys
import urllib.request

import numpy as np

from keras_maskrcnn import MaskRCNN, data, training, visualize

SHAPES = data.Shapes(4, image_size=(64, 64), seed=5, object_size=(12, 30))
SIZES = {"image_size": (64, 64), "batch_size": 2, "max_instances": 6, "mask_size": 28}


def model():
    """A Mask R-CNN of ten thousand weights."""
    return MaskRCNN(
        SHAPES.num_classes,
        {"name": "resnet10", "width": 8, "norm": "group"},
        class_names=SHAPES.class_names,
        image_size=(64, 64),
        fpn_channels=16,
        proposals={"pre_nms": 50, "post_nms": 20},
        box_stage={"width": 16},
        mask_stage={"width": 8, "depth": 1},
        detection={"score_threshold": 0.0, "max_detections": 5},
        seed=7,
    )


def base(folder):
    """Two steps of training with scores in TensorBoard's files; detections before and after saving and export."""
    import keras
    import tensorflow as tf

    network = model()
    network.compile(training.SGD(1e-3, momentum=0.9))
    scored = training.CocoEval(SHAPES, log_dir=folder / "logs", images=1, max_detections=5)
    history = network.fit(data.batches(SHAPES, **SIZES), epochs=1, callbacks=[scored], verbose=0).history
    assert np.isfinite(history["loss"][0]) and "val_segm_AP" in history
    visualize.curves(history, folder / "curves.png")
    image = SHAPES[0]["image"]
    found = network.detect(image, score_threshold=0.0)
    assert found["masks"].shape == (len(found["scores"]), 64, 64) and len(found["scores"]) > 0
    visualize.save(folder / "found.png", image, found, SHAPES.class_names)
    network.save(folder / "model.keras")
    again = keras.saving.load_model(folder / "model.keras").detect(image, score_threshold=0.0)
    np.testing.assert_allclose(again["boxes"], found["boxes"], atol=1e-2)
    network.export(folder / "exported")
    served = tf.saved_model.load(folder / "exported").signatures["serving_default"](images=image[None])
    np.testing.assert_allclose(served["detection_scores"][0, : len(found["scores"])], found["scores"], atol=1e-3)


def yaml(folder):
    """pyyaml: the description of a YOLO data set."""
    data.write_yolo(SHAPES, folder / "yolo")
    assert data.open(folder / "yolo").class_names == SHAPES.class_names


def channels(folder):
    """imagecodecs and tifffile: images of more than three channels."""
    import imagecodecs
    import tifffile

    image = np.random.default_rng(0).integers(0, 60000, (40, 50, 4), np.uint16)
    tifffile.imwrite(folder / "four.tif", image)
    (folder / "four.png").write_bytes(imagecodecs.png_encode(image))
    for name in ("four.tif", "four.png"):
        np.testing.assert_array_equal(data.read_image(folder / name, channels=4, dtype="uint16"), image)


def convert(folder):
    """h5py and safetensors: files of weights."""
    import h5py
    from safetensors.numpy import save_file

    from keras_maskrcnn.weights import files

    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    save_file({"w": kernel}, folder / "w.safetensors")
    np.testing.assert_array_equal(files.read(folder / "w.safetensors")["w"], kernel)
    with h5py.File(folder / "w.h5", "w") as file:
        file.attrs["layer_names"] = [b"conv"]
        group = file.create_group("conv")
        group.attrs["weight_names"] = [b"conv/kernel:0"]
        group["conv/kernel:0"] = kernel
    (found,) = files.read(folder / "w.h5").values()
    np.testing.assert_array_equal(found, kernel)


def digits(folder):
    """scikit-learn: its images of digits."""
    assert data.Digits(2)[0]["masks"].any()


def grain(folder):
    """grain: batches prepared in processes."""
    with contextlib.closing(data.batches(SHAPES, **SIZES, workers=1, backend="grain")) as batches:
        in_threads = data.batches(SHAPES, **SIZES, backend="numpy")
        np.testing.assert_array_equal(batches[0][0]["images"], in_threads[0][0]["images"])


def hub(folder):
    """huggingface_hub: a repository that cannot be reached is a one-line error."""
    import os

    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HOME"] = str(folder / "hub")
    try:
        MaskRCNN.from_preset("hf://nobody/nothing")
    except data.DataError as error:
        assert "cannot be fetched" in str(error), error
    else:
        raise AssertionError("a repository was found without a network")


def litert(folder):
    """ai-edge-litert: a file of its own finds what the model finds."""
    same_from_file(folder / "model.tflite")


def onnx(folder):
    """onnx, onnxruntime and tf2onnx."""
    same_from_file(folder / "model.onnx")


def openvino(folder):
    """openvino."""
    same_from_file(folder / "model.xml")


def same_from_file(path):
    """Exports a model, reads the file and compares what both find."""
    from keras_maskrcnn.inference.export import opened

    network, image = model(), SHAPES[0]["image"]
    network.export(path)
    expected, found = (one.detect(image, score_threshold=0.0) for one in (network, opened(path)))
    assert len(found["scores"]) == len(expected["scores"]) > 0
    for name in ("boxes", "scores"):
        np.testing.assert_allclose(found[name], expected[name], atol=0.05)


def serve(folder):
    """fastapi, prometheus-client, python-multipart and uvicorn: a photo in, detections and a metric out."""
    photo = next((pathlib.Path(__file__).parents[1] / "docs" / "images" / "nuclei").glob("*[!s].png")).read_bytes()
    words = [sys.executable, "-m", "keras_maskrcnn", "serve", "--model", "nuclei", "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=folder) as service:
        try:
            url = re.search(r"http://\S+:\d+/", service.stdout.readline())[0]
            form = b'--edge\r\nContent-Disposition: form-data; name="images"; filename="0.png"\r\n'
            form += b"Content-Type: image/png\r\n\r\n" + photo + b"\r\n--edge--\r\n"
            types = {"image/png": photo, "multipart/form-data; boundary=edge": form}
            for kind, body in types.items():
                asked = urllib.request.Request(f"{url}v1/predict", body, {"Content-Type": kind})
                with urllib.request.urlopen(asked, timeout=120) as answer:
                    assert b'"score"' in answer.read()
            with urllib.request.urlopen(f"{url}metrics", timeout=120) as answer:
                assert b"# TYPE" in answer.read()
        finally:
            service.terminate()


def tfrecord(folder):
    """google-crc32c and protobuf: TFRecord files."""
    data.write_tfrecord(SHAPES, folder / "shapes.tfrecord")
    np.testing.assert_array_equal(data.TfRecord(folder / "shapes.tfrecord")[1]["masks"], SHAPES[1]["masks"])


def video(folder):
    """PyAV: a video and its frames."""
    from keras_maskrcnn.data.video import VideoWriter, frames

    writer = VideoWriter(folder / "video.mp4", 10)
    for level in (60, 120):
        writer.add(np.full((40, 64, 3), level, np.uint8))
    writer.close()
    assert [round(image.mean(), -1) for _, image, _ in frames(folder / "video.mp4")] == [60, 120]


PARTS = (yaml, channels, convert, digits, grain, hub, tfrecord, video, base, litert, onnx, openvino, serve)

if __name__ == "__main__":
    into = pathlib.Path(sys.argv[1])
    for part in PARTS:
        if part.__name__ in (sys.argv[2:] or part.__name__):
            part(into)
            print("ok", part.__name__, flush=True)
