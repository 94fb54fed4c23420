"""torchvision's `maskrcnn_resnet50_fpn` as with its COCO weights: frozen batch norms, stem and first stage."""

import contextlib

import numpy as np
import scenes
import torch
from PIL import Image
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.resnet import resnet50
from torchvision.ops.misc import FrozenBatchNorm2d

import peers

TRAINABLE_STAGES = 3


def build(kind, **options):
    """The network with the weights of `scenes.generated`.

    It is built from its parts because `maskrcnn_resnet50_fpn(weights=None)` has trainable batch norms.

    Args:
        kind: such as "bfloat16 channels-last".
        **options: arguments of `MaskRCNN`.
    """
    body = resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
    generated = scenes.generated()
    model = MaskRCNN(_resnet_fpn_extractor(body, TRAINABLE_STAGES), num_classes=generated.CLASSES["v1"], **options)
    overwrite_eps(model, 0.0)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in generated.weights("v1").items()})
    return model.to(memory_format=torch.channels_last) if "channels-last" in kind else model


def precision(kind):
    """The context of the forward pass of a kind."""
    return torch.autocast("cpu", torch.bfloat16) if "bfloat16" in kind else contextlib.nullcontext()


def detector(kind, score_threshold, **options):
    """Function from a uint8 [H, W, 3] image to its detections, with masks pasted as probabilities."""
    model = build(kind, box_score_thresh=score_threshold, **options).eval()

    @torch.inference_mode()
    def detect(image):
        with precision(kind):
            return model([torch.from_numpy(image).permute(2, 0, 1).float() / 255])[0]

    return detect


def write_onnx(path, pixels, names):
    """Write the network for one size of image as an ONNX file whose masks are not pasted.

    Args:
        path: the file.
        pixels: float32 `[3, H, W]` in 0…1.
        names: of the four outputs.
    """
    size = pixels.shape[1:]
    model = build("float32", box_score_thresh=peers.SCORE_THRESHOLD, min_size=min(size), max_size=max(size)).eval()
    model.transform.postprocess = lambda found, shapes, sizes: found
    torch.onnx.export(
        model, ([pixels],), str(path), input_names=["pixels"], output_names=list(names), opset_version=17, dynamo=False
    )


def inference(kind, image):
    """One image at its own scale, from uint8 to pasted masks."""
    size = image.shape[:2]
    detect = detector(kind, peers.SCORE_THRESHOLD, min_size=min(size), max_size=max(size))

    def call():
        masks = detect(image)["masks"]
        return {"detections": len(masks), "mask_shape": [len(masks), *masks.shape[2:]]}

    return call, 1


def folder(kind, paths, threshold):
    """A loop over files: decoding, detection, thresholding of masks."""
    detect = detector(kind, threshold)

    def one(path):
        found = detect(np.array(Image.open(path).convert("RGB")))
        found["masks"] = found["masks"][:, 0] >= 0.5
        return len(found["labels"])

    def call():
        return {"pictures": len(paths), "detections": sum(map(one, paths))}

    return call, 1, lambda: one(paths[0])


def training(kind, x, y):
    """One step of SGD with momentum for a batch as of a data loader: tensors of 0…1 with whole masks."""
    model = build(kind, _skip_resize=True).train()
    images, targets = as_tensors(x, y)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, peers.RATE, momentum=peers.MOMENTUM)
    seen = {}
    model.roi_heads.mask_head.register_forward_pre_hook(lambda _, inputs: seen.update(mask_rois=len(inputs[0])))

    def call():
        with precision(kind):
            losses = model(images, targets)
        optimizer.zero_grad()
        total = sum(losses.values())
        total.backward()
        optimizer.step()
        return {**seen, "loss": total.item()}

    return call, 1


def as_tensors(x, y):
    """Images and targets of `scenes.training_batch` in torchvision's format."""
    images = [torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in x["images"]]
    targets = []
    for boxes, labels in zip(y["boxes"], y["labels"], strict=True):
        masks = np.zeros((len(boxes), *x["images"].shape[1:3]), "uint8")
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
            mask[y1:y2, x1:x2] = 1  # the objects fill their boxes
        target = {"boxes": boxes, "labels": labels.astype("int64"), "masks": masks}
        targets.append({name: torch.from_numpy(array) for name, array in target.items()})
    return images, targets
