"""Torchvision's side of `training_quality.py`, which starts it with `--peer-python`. Needs torch, torchvision, NumPy.

    python benchmarks/training_quality_torch.py --crops CROPS --pictures PICTURES --output RUN --seed 0

The detector consists of torchvision's parts; the loop is that of torchvision's reference script with shared numbers.
Heads have the initial distributions of the other side (He, and 0.01 and 0.001 for the two predictors); the rest have
torchvision's, which are those of the other side.
"""

import pathlib

import numpy as np
import torch
import training_quality_setup as setup
from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.resnet import BasicBlock, ResNet


class NarrowResNet18(ResNet):
    """ResNet-18 with group normalisation and `setup.WIDTH` channels in its stem."""

    def __init__(self):
        super().__init__(BasicBlock, [2, 2, 2, 2], norm_layer=lambda c: nn.GroupNorm(min(setup.GROUPS, c), c))
        width = self.inplanes = setup.WIDTH
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = self._norm_layer(width)
        for stage in range(1, 5):
            layer = self._make_layer(BasicBlock, width * 2 ** (stage - 1), 2, stride=1 if stage == 1 else 2)
            setattr(self, f"layer{stage}", layer)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def build():
    """The detector with the numbers of `setup`."""
    levels = {f"layer{stage}": str(stage - 1) for stage in range(1, 5)}
    widths = [setup.WIDTH * 2**stage for stage in range(4)]
    channels = setup.FPN_CHANNELS
    model = MaskRCNN(
        BackboneWithFPN(NarrowResNet18(), levels, widths, channels),
        rpn_anchor_generator=AnchorGenerator(tuple((size,) for size in setup.ANCHORS), ((0.5, 1.0, 2.0),) * 5),
        rpn_pre_nms_top_n_train=setup.PRE_NMS,
        rpn_pre_nms_top_n_test=setup.PRE_NMS,
        rpn_post_nms_top_n_train=setup.POST_NMS,
        rpn_post_nms_top_n_test=setup.POST_NMS,
        rpn_batch_size_per_image=setup.RPN_SAMPLES,
        box_batch_size_per_image=setup.BOX_SAMPLES,
        box_head=TwoMLPHead(channels * 7 * 7, setup.BOX_WIDTH),
        box_predictor=FastRCNNPredictor(setup.BOX_WIDTH, 2),
        mask_head=MaskRCNNHeads(channels, (setup.MASK_WIDTH,) * setup.MASK_DEPTH, 1),
        mask_predictor=MaskRCNNPredictor(setup.MASK_WIDTH, setup.MASK_WIDTH, 2),
        box_score_thresh=setup.SCORE_THRESHOLD,
        box_detections_per_img=setup.MAX_DETECTIONS,
        _skip_resize=True,
    )
    initialise_heads(model.roi_heads)
    return model


def initialise_heads(heads):
    """The distributions from which the heads of the other side start."""
    for module in heads.modules():
        if isinstance(module, nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=(2 / module.in_channels) ** 0.5)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)
    nn.init.normal_(heads.box_predictor.cls_score.weight, std=0.01)
    nn.init.normal_(heads.box_predictor.bbox_pred.weight, std=0.001)


def optimizer(model):
    """AdamW that leaves vectors (biases, norms) undecayed."""
    weights = list(model.parameters())
    groups = [
        {"params": [w for w in weights if w.ndim > 1], "weight_decay": setup.WEIGHT_DECAY},
        {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=setup.LEARNING_RATE, eps=setup.EPSILON, fused=True)


def batch(crops, start):
    """Images and targets of one step, as torchvision's model takes them."""
    images, targets = [], []
    for place in range(start, start + setup.BATCH):
        image, boxes, masks = crops[place]
        images.append(as_image(image))
        labels = torch.ones(len(boxes), dtype=torch.int64)
        targets.append({"boxes": torch.from_numpy(boxes), "labels": labels, "masks": torch.from_numpy(masks)})
    return images, targets


def as_image(picture):
    """uint8 [H, W, 3] to float32 [3, H, W] in 0…1."""
    return torch.from_numpy(picture).permute(2, 0, 1).float() / 255


def train(model, crops, precision):
    """One pass over the crops; returns the `Progress`."""
    steps = len(crops) // setup.BATCH
    adam = optimizer(model)
    model.train()
    progress = setup.Progress("torchvision", steps * setup.BATCH)
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = setup.learning_rate(step, steps)
        images, targets = batch(crops, step * setup.BATCH)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            losses = model(images, targets)
        adam.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), setup.CLIP)
        adam.step()
        progress.step((step + 1) * setup.BATCH, {name: value.item() for name, value in losses.items()})
    return progress


@torch.inference_mode()
def detect(model, pictures):
    """Yields (boxes, scores, masks) of each image at its own size."""
    model.eval()
    for picture in pictures:
        model.transform.min_size, model.transform.max_size = (min(picture.shape[:2]),), max(picture.shape[:2])
        found = model([as_image(picture)])[0]
        yield found["boxes"].numpy(), found["scores"].numpy(), (found["masks"][:, 0] >= 0.5).numpy()


def fastest_precision():
    """The rule of `keras_maskrcnn.backend.precision` for processors."""
    flags = pathlib.Path("/proc/cpuinfo").read_text()
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


def run(arguments):
    """Train and detect."""
    torch.manual_seed(arguments.seed)
    model = build().to(memory_format=torch.channels_last)
    precision = fastest_precision() if arguments.precision == "auto" else arguments.precision
    progress = train(model, setup.Crops(arguments.crops), precision)
    record = progress.record(
        precision=precision,
        parameters=sum(w.numel() for w in model.parameters()),
        threads=torch.get_num_threads(),
        versions={"torch": torch.__version__, "numpy": np.__version__},
    )
    return record, detect(model, setup.read_pictures(arguments.pictures))


if __name__ == "__main__":
    setup.worker(run, __doc__)
