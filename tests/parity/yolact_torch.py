"""YOLACT (Bolya et al. 2019) in torch, as the reference of the comparison. Needs torch and torchvision only.

The network, the losses and the detection follow the paper's formulas; where the paper leaves a choice, the one of the
original project (dbolya/yolact, yolact_base and its variants) is taken and named. Modules have the names of that
project's files, so that `state_dict` has their layout. Norms are frozen, as the project does for small batches.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torchvision.models.resnet import resnet50
from torchvision.ops import box_iou

SIZES, RATIOS = (24, 48, 96, 192, 384), (1, 1 / 2, 2)  # pixels of each level's anchors; width / height
PROTOTYPES, WIDTH, BLOCKS = 32, 256, (1, 2, 8, 8, 4)
VARIANCES = (0.1, 0.2)  # of centre and size (SSD)
POSITIVE_IOU, NEGATIVE_IOU, CROWD_COVER, NEGATIVES = 0.5, 0.4, 0.7, 3
BOX_WEIGHT, MASK_WEIGHT, MASKS = 1.5, 6.125, 100
SCORE, NMS_IOU, PER_CLASS, DETECTIONS = 0.05, 0.5, 200, 100


# Network --------------------------------------------------------------------------------------------------------------


class ResNet50(nn.Module):
    """torchvision's ResNet-50 with its four stages in a list; pixels are normalised as for ImageNet."""

    channels = (512, 1024, 2048)
    mean, std = (123.68, 116.78, 103.94), (58.40, 57.12, 57.38)  # R, G, B

    def __init__(self):
        super().__init__()
        body = resnet50(weights=None)
        self.conv1, self.bn1 = body.conv1, body.bn1
        self.layers = nn.ModuleList([body.layer1, body.layer2, body.layer3, body.layer4])

    def forward(self, x):
        """C3, C4 and C5."""
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return _outputs(self.layers, x)[1:]


class DarkNetBlock(nn.Module):
    """1×1 convolution to half the channels, 3×3 convolution back, shortcut."""

    def __init__(self, channels):
        super().__init__()
        self.conv1 = _unit(channels, channels // 2, 1)
        self.conv2 = _unit(channels // 2, channels, 3)

    def forward(self, x):
        return x + self.conv2(self.conv1(x))


class DarkNet53(nn.Module):
    """DarkNet-53 without its classifier; pixels are divided by 255."""

    channels = (256, 512, 1024)
    mean, std = (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)

    def __init__(self):
        super().__init__()
        self._preconv = _unit(3, 32, 3)
        self.layers = nn.ModuleList(
            nn.Sequential(
                _unit(16 * 2**stage, 32 * 2**stage, 3, stride=2),
                *(DarkNetBlock(32 * 2**stage) for _ in range(blocks)),
            )
            for stage, blocks in enumerate(BLOCKS, start=1)
        )

    def forward(self, x):
        """C3, C4 and C5."""
        return _outputs(self.layers, self._preconv(x))[2:]


def _unit(inputs, outputs, size, stride=1):
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1))


def _outputs(stages, x):
    found = []
    for stage in stages:
        x = stage(x)
        found.append(x)
    return found


class Pyramid(nn.Module):
    """P3 to P7; the first lateral and the first output layer are those of C5."""

    def __init__(self, channels):
        super().__init__()
        self.lat_layers = nn.ModuleList(nn.Conv2d(count, WIDTH, 1) for count in reversed(channels))
        self.pred_layers = nn.ModuleList(_conv3(WIDTH) for _ in channels)
        self.downsample_layers = nn.ModuleList(_conv3(WIDTH, stride=2) for _ in range(2))

    def forward(self, levels):
        merged = []
        for lateral, level in zip(self.lat_layers, reversed(levels), strict=True):
            x = lateral(level)
            merged.append(x + _resized(merged[-1], x.shape[2:]) if merged else x)
        found = [functional.relu(conv(x)) for conv, x in zip(self.pred_layers, merged, strict=True)][::-1]
        for conv in self.downsample_layers:  # no ReLU after these
            found.append(conv(found[-1]))
        return found


class Prediction(nn.Module):
    """The head that all levels share."""

    def __init__(self, classes):
        super().__init__()
        self.upfeature = nn.Sequential(_conv3(WIDTH), nn.ReLU())
        self.bbox_layer = _conv3(len(RATIOS) * 4)
        self.conf_layer = _conv3(len(RATIOS) * classes)
        self.mask_layer = _conv3(len(RATIOS) * PROTOTYPES)

    def forward(self, level):
        """Deltas, logits and coefficients, each `[B, H·W·3, numbers]`."""
        x = self.upfeature(level)
        layers = (self.bbox_layer, self.conf_layer, self.mask_layer)
        deltas, logits, coefficients = (
            layer(x).permute(0, 2, 3, 1).reshape(len(x), -1, layer.out_channels // len(RATIOS)) for layer in layers
        )
        return deltas, logits, torch.tanh(coefficients)


class Double(nn.Module):
    """Bilinear enlargement by two."""

    def forward(self, x):
        return _resized(x, [2 * side for side in x.shape[2:]])


def _conv3(outputs, stride=1):
    return nn.Conv2d(WIDTH, outputs, 3, stride, 1)


def _resized(x, size):
    return functional.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


class Yolact(nn.Module):
    """The whole model.

    Args:
        body: `ResNet50` or `DarkNet53`.
        classes: K without background.
    """

    def __init__(self, body, classes):
        super().__init__()
        self.classes = classes
        self.backbone = body()
        self.fpn = Pyramid(body.channels)
        self.prediction_layers = nn.ModuleList([Prediction(classes + 1)])
        relus = [nn.ReLU() for _ in range(5)]  # at places of their own, as the names count them
        convs = [_conv3(WIDTH), _conv3(WIDTH), _conv3(WIDTH), Double(), _conv3(WIDTH)]
        units = [part for pair in zip(convs, relus, strict=True) for part in pair]
        self.proto_net = nn.Sequential(*units, nn.Conv2d(WIDTH, PROTOTYPES, 1))
        self.semantic_seg_conv = nn.Conv2d(WIDTH, classes, 1)

    def train(self, mode=True):
        """Sets the mode of all layers but the norms, which keep their statistics, scales and offsets."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval().requires_grad_(False)
        return self

    def outputs(self, images):
        """Everything that the network computes, from a list of `[3, H, W]` in 0…1."""
        pixels = torch.stack(images)
        mean, std = (pixels.new_tensor(v)[:, None, None] for v in (self.backbone.mean, self.backbone.std))
        levels = self.fpn(self.backbone((pixels * 255 - mean) / std))
        deltas, logits, coefficients = (
            torch.cat(parts, 1) for parts in zip(*map(self.prediction_layers[0], levels), strict=True)
        )
        return {
            **{f"P{i}": level for i, level in enumerate(levels, start=3)},
            "box_deltas": deltas,
            "class_logits": logits,
            "coefficients": coefficients,
            "prototypes": functional.relu(self.proto_net(levels[0])),
            "semantic_logits": self.semantic_seg_conv(levels[0]),
            "priors": priors([level.shape[2:] for level in levels], pixels.shape[2:]).to(pixels),
        }

    def forward(self, images, truth=None):
        """Losses of a list of images with a list of ground truth, see `losses`."""
        return losses(self.outputs(images), truth)


# Anchors and boxes, relative to the canvas ----------------------------------------------------------------------------


def priors(shapes, canvas):
    """Anchors `[A, 4]` as x, y, width and height, relative to a canvas (height, width).

    The sides are those of squares: the width of a ratio r is √r times the size, and the project's weights are trained
    with the height equal to the width (`use_square_anchors`).
    """
    found = []
    for (rows, columns), size in zip(shapes, SIZES, strict=True):
        sides = torch.tensor([size * ratio**0.5 for ratio in RATIOS], dtype=torch.float64)
        y, x = torch.meshgrid(
            (torch.arange(rows, dtype=torch.float64) + 0.5) / rows,
            (torch.arange(columns, dtype=torch.float64) + 0.5) / columns,
            indexing="ij",
        )
        centres = torch.stack([x, y], -1)[:, :, None].expand(rows, columns, len(sides), 2)
        extents = torch.stack([sides / canvas[1], sides / canvas[0]], -1).expand(rows, columns, len(sides), 2)
        found.append(torch.cat([centres, extents], -1).reshape(-1, 4))
    return torch.cat(found)


def corners(boxes):
    """x, y, width, height to x1, y1, x2, y2."""
    return torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)


def encoded(boxes, anchors):
    """Regression targets (SSD, equation 2, divided by the variances) of boxes given by their corners."""
    centres, extents = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    shift = (centres - anchors[:, :2]) / anchors[:, 2:] / VARIANCES[0]
    return torch.cat([shift, torch.log(extents / anchors[:, 2:]) / VARIANCES[1]], 1)


def decoded(deltas, anchors):
    """The inverse of `encoded`."""
    centres = anchors[:, :2] + deltas[:, :2] * VARIANCES[0] * anchors[:, 2:]
    return corners(torch.cat([centres, anchors[:, 2:] * torch.exp(deltas[:, 2:] * VARIANCES[1])], 1))


def inside(boxes, size):
    """Bool `[n, h, w]`: the cells of a map of (h, w) in boxes relative to the canvas, with one cell around them."""
    (y1, y2), (x1, x2) = ((boxes[:, [i, i + 2]] * size[1 - i]).T for i in (1, 0))
    y, x = (torch.arange(side, device=boxes.device, dtype=boxes.dtype) for side in size)
    rows = (y >= y1[:, None] - 1) & (y < y2[:, None] + 1)
    columns = (x >= x1[:, None] - 1) & (x < x2[:, None] + 1)
    return rows[:, :, None] & columns[:, None, :]


# Training -------------------------------------------------------------------------------------------------------------


def matched(anchors, boxes, crowds):
    """Ground truth of the anchors of an image.

    Every object first gets one anchor of its own: the pair of the highest IoU, then the highest of the remaining ones,
    and so on. Other anchors belong to the object of the highest IoU.

    Returns:
        (row of `boxes` int64 `[A]`, 1 for positives, 0 for negatives and -1 for neutrals `[A]`).
    """
    overlaps = box_iou(boxes, corners(anchors))
    best, row = overlaps.max(0)
    for _ in range(len(boxes)):
        of_object, place = overlaps.max(1)
        chosen = of_object.argmax()
        anchor = place[chosen]
        best[anchor], row[anchor] = 2, chosen
        overlaps[chosen], overlaps[:, anchor] = -1, -1
    role = torch.where(best >= POSITIVE_IOU, 1, torch.where(best < NEGATIVE_IOU, 0, -1))
    if len(crowds):
        x1, y1, x2, y2 = corners(anchors)[:, None].unbind(-1)
        width = (torch.minimum(x2, crowds[:, 2]) - torch.maximum(x1, crowds[:, 0])).clamp(min=0)
        height = (torch.minimum(y2, crowds[:, 3]) - torch.maximum(y1, crowds[:, 1])).clamp(min=0)
        cover = (width * height / ((x2 - x1) * (y2 - y1))).max(1).values
        role[(role == 0) & (cover > CROWD_COVER)] = -1
    return row, role


def hard_negatives(logits, role):
    """Bool `[A]`: three negatives for each positive of an image, those with the least probability of background."""
    loss = torch.logsumexp(logits, 1) - logits[:, 0]
    loss = torch.where(role == 0, loss, -torch.inf)
    count = min(NEGATIVES * int((role == 1).sum()), int((role == 0).sum()))
    chosen = torch.zeros(len(role), dtype=torch.bool, device=role.device)
    chosen[loss.topk(count).indices] = True
    return chosen


def losses(outputs, truth):
    """The four losses of a batch.

    Args:
        outputs: from `Yolact.outputs`.
        truth: for each image `boxes` `[N, 4]` in pixels, `labels` int64 `[N]` of 1…K, `masks` uint8 `[N, H, W]` of 0
            and 1, and `crowd` bool `[N]`.

    Returns:
        dict of scalars: class, box and mask loss divided by the number of positives, the semantic loss by the number of
        images and cells.
    """
    anchors, sums, positives = outputs["priors"], {"class": 0, "box": 0, "mask": 0, "semantic": 0}, 0
    for i, image in enumerate(truth):
        real, canvas = ~image["crowd"], image["masks"].shape[1:]
        scale = anchors.new_tensor([canvas[1], canvas[0]] * 2)
        boxes, labels = image["boxes"][real].to(anchors) / scale, image["labels"][real]
        masks = image["masks"][real].to(anchors)
        row, role = matched(anchors, boxes, image["boxes"][~real].to(anchors) / scale)
        positive = role == 1
        positives += int(positive.sum())
        logits = outputs["class_logits"][i]
        target = torch.where(positive, labels[row], 0)
        used = positive | hard_negatives(logits.detach(), role)
        sums["class"] += functional.cross_entropy(logits[used], target[used], reduction="sum")
        goal = encoded(boxes[row[positive]], anchors[positive])
        sums["box"] += functional.smooth_l1_loss(outputs["box_deltas"][i][positive], goal, reduction="sum")
        of_image = {name: outputs[name][i] for name in ("coefficients", "prototypes", "semantic_logits")}
        sums["mask"] += mask_loss(of_image, boxes, masks, row, positive)
        sums["semantic"] += semantic_loss(of_image["semantic_logits"], masks, labels)
    weights = {"class": 1 / positives, "box": BOX_WEIGHT / positives, "mask": MASK_WEIGHT / positives}
    weights["semantic"] = 1 / len(truth)
    return {f"loss_{name}": weights[name] * value for name, value in sums.items()}


def mask_loss(outputs, boxes, masks, row, positive):
    """Cross entropies of the cropped masks, each divided by the area of the object's box in cells; their sum.

    They are computed from logits: the probability of a large one is 1 in float32, whose error is not finite. Outside
    the crop there is no error, as the target is 0 there too.
    """
    if positive.sum() > MASKS:
        raise SystemExit(f"{int(positive.sum())} positives: of more than {MASKS} the masks would be drawn at random")
    prototypes = outputs["prototypes"]
    size = prototypes.shape[1:]
    target = (_resized(masks[None], size)[0] > 0.5).to(prototypes)[row[positive]]
    boxes = boxes[row[positive]]
    logits = torch.einsum("nk,khw->nhw", outputs["coefficients"][positive], prototypes)
    error = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    error = (error * inside(boxes, size)).sum((1, 2))
    sides = (boxes[:, 2:] - boxes[:, :2]) * boxes.new_tensor([size[1], size[0]])
    return (error / sides.prod(1)).sum()


def semantic_loss(logits, masks, labels):
    """Cross entropies of the classes' maps `[K, h, w]`: the sum over classes, the mean over cells."""
    target = torch.zeros_like(logits)
    for mask, label in zip(_resized(masks[None], logits.shape[1:])[0] > 0.5, labels, strict=True):
        target[label - 1] = torch.maximum(target[label - 1], mask.to(target))
    return functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((1, 2)).sum()


# Detection ------------------------------------------------------------------------------------------------------------


def detections(outputs, canvas):
    """Fast NMS (section 3.3) in each class, then the masks, of the first image.

    Returns:
        dict of `boxes` `[n, 4]` in pixels, inside the canvas, `labels`, `scores` in descending order, and `masks` bool
        `[n, *canvas]`.
    """
    boxes = decoded(outputs["box_deltas"][0], outputs["priors"])
    scores, rows = outputs["class_logits"][0].softmax(1)[:, 1:].T.sort(descending=True)
    scores, rows = scores[:, :PER_CLASS], rows[:, :PER_CLASS]
    kept = torch.stack([_kept(boxes[of_class]) for of_class in rows]) & (scores > SCORE)
    labels, places = kept.nonzero(as_tuple=True)
    order = scores[labels, places].argsort(descending=True)[:DETECTIONS]
    labels, places = labels[order], places[order]
    rows, scores = rows[labels, places], scores[labels, places]
    masks = assembled(outputs["prototypes"][0], outputs["coefficients"][0][rows], boxes[rows], canvas)
    pixels = boxes[rows].clamp(0, 1) * boxes.new_tensor([canvas[1], canvas[0]] * 2)
    return {"boxes": pixels, "labels": labels + 1, "scores": scores, "masks": masks}


def _kept(boxes):
    """Bool `[n]`: boxes, the best first, whose IoU with every better one is at most the threshold."""
    return box_iou(boxes, boxes).triu(1).max(0).values <= NMS_IOU


def assembled(prototypes, coefficients, boxes, canvas):
    """Masks bool `[n, *canvas]`: sums of prototypes (equation 1), cropped, enlarged, and above one half."""
    masks = torch.sigmoid(torch.einsum("nk,khw->nhw", coefficients, prototypes))
    masks = masks * inside(boxes.clamp(0, 1), masks.shape[1:])
    return _resized(masks[None], canvas)[0] > 0.5 if len(masks) else masks.new_zeros((0, *canvas)) > 0


def answers(model, picture):
    """The compared arrays of one image, uint8 `[H, W, 3]`, which has the size of the canvas.

    Returns:
        dict of NumPy arrays, maps channels last.
    """
    image = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))).float() / 255
    with torch.no_grad():
        outputs = model.outputs([image])
        found = detections(outputs, picture.shape[:2])
    arrays = {name: tensor[0] for name, tensor in outputs.items() if name != "priors"}
    maps = (*(name for name in arrays if name[0] == "P"), "prototypes", "semantic_logits")
    arrays |= {name: arrays[name].permute(1, 2, 0) for name in maps}
    return {name: tensor.contiguous().numpy() for name, tensor in {**arrays, **found}.items()}
