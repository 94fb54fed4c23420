"""The side of the comparison in torch. Needs torch and torchvision, but neither Keras nor this package.

    KMR_DATA=… python tests/parity/torch_side.py runs/parity

writes the generated weights in torch's format (v1.pth, …), one .npz per image and version with the arrays that
`compare.py` compares, and for the versions that are trained training_v1.npz, … with losses, gradients and ten steps of
SGD. The versions of Mask R-CNN and Keypoint R-CNN are torchvision's models, those of YOLACT are in `yolact_torch.py`.
"""

import copy
import pathlib
import sys

import cases
import generated
import measure
import numpy as np
import torch
import yolact_torch
from torchvision.models.detection import KeypointRCNN, MaskRCNN, maskrcnn_resnet50_fpn_v2
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.resnet import resnet50
from torchvision.ops.misc import FrozenBatchNorm2d

# Larger than any number of candidates: the samplers take all of them, so that nothing is random.
EVERYTHING = 10**6
# Largest relative error of rounding to float32, and the number of training runs with such errors.
UNIT_ROUNDOFF, ROUNDED_RUNS = 2.0**-24, 2
COMMON_LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")
LOSSES = {"v1": (*COMMON_LOSSES, "loss_mask"), "keypoint": (*COMMON_LOSSES, "loss_keypoint")}
LOSSES |= dict.fromkeys(generated.YOLACT, ("loss_class", "loss_box", "loss_mask", "loss_semantic"))
BODIES = {"yolact_resnet50": yolact_torch.ResNet50, "yolact_darknet53": yolact_torch.DarkNet53}


def build(version, resize, **options):
    """The model of a version with the generated weights, for evaluation; YOLACT's has neither resizing nor options.

    v1 and keypoint are built from their parts, because `maskrcnn_resnet50_fpn` and `keypointrcnn_resnet50_fpn` without
    weights have trainable batch norms; with their COCO weights these are frozen and have the epsilon 0.
    """
    if version in BODIES:
        model = yolact_torch.Yolact(BODIES[version], generated.CLASSES[version] - 1)
        model.load_state_dict(state_dict(version))
        return model.eval()
    options.update(min_size=resize["shorter"], max_size=resize["longer"])
    if version != "v2":
        body = resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
        make = {"v1": MaskRCNN, "keypoint": KeypointRCNN}[version]
        model = make(_resnet_fpn_extractor(body, 3), num_classes=generated.CLASSES[version], **options)
        overwrite_eps(model, 0.0)
    else:
        none = {"weights": None, "weights_backbone": None}
        model = maskrcnn_resnet50_fpn_v2(**none, num_classes=generated.CLASSES[version], **options)
    model.load_state_dict(state_dict(version))
    return model.eval()


def state_dict(version):
    """The generated weights as torch tensors."""
    return {name: torch.from_numpy(array) for name, array in generated.weights(version).items()}


def answers(model, picture):
    """The compared arrays of one image.

    Args:
        model: from `build`.
        picture: uint8 `[H, W, 3]`.

    Returns:
        dict of NumPy arrays, maps and regions channels last; "input_" marks coordinates of the network's input.
    """
    if isinstance(model, yolact_torch.Yolact):
        return yolact_torch.answers(model, picture)
    seen = {}
    hooks = [
        # A copy, because the model scales the detections to the image in the same dict.
        module.register_forward_hook(lambda _, __, output, name=name: seen.update({name: copy.deepcopy(output)}))
        for name, module in _watched(model).items()
    ]
    with torch.no_grad():
        found = model([_tensor(picture)])[0]
    for hook in hooks:
        hook.remove()
    rpn_logits, rpn_deltas = (torch.cat([_anchor_rows(x, n) for x in seen["rpn"][i]]) for i, n in ((0, 1), (1, 4)))
    detections = seen["heads"][0][0]
    labels = detections["labels"]
    arrays = {f"P{i + 2}": x[0].permute(1, 2, 0) for i, x in enumerate(seen["pyramid"].values())}
    arrays |= {"rpn_logits": rpn_logits[:, 0], "rpn_deltas": rpn_deltas, "proposals": seen["proposals"][0][0]}
    arrays |= {"class_logits": seen["box"][0], "box_deltas": seen["box"][1], "input_boxes": detections["boxes"]}
    arrays |= {name: found[name] for name in ("boxes", "labels", "scores")}
    if "mask" in seen:
        arrays |= {"mask_logits": seen["mask"][torch.arange(len(labels)), labels]}
        arrays["masks"] = found["masks"][:, 0] >= 0.5
    else:
        arrays["keypoint_logits"] = seen["keypoint"].permute(0, 2, 3, 1)
        arrays |= {"keypoints": found["keypoints"], "keypoint_scores": found["keypoints_scores"]}
    return {name: tensor.contiguous().numpy() for name, tensor in arrays.items()}


def _watched(model):
    """Modules whose outputs `answers` stores, by a short name."""
    masks = model.roi_heads.has_mask()
    last = {"mask": model.roi_heads.mask_predictor} if masks else {"keypoint": model.roi_heads.keypoint_predictor}
    return {
        **last,
        "pyramid": model.backbone,
        "rpn": model.rpn.head,
        "proposals": model.rpn,
        "box": model.roi_heads.box_predictor,
        "heads": model.roi_heads,
    }


def _tensor(picture):
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))).float() / 255


def _anchor_rows(output, columns):
    """`[1, A·columns, H, W]` to `[H·W·A, columns]`, rows of the image outermost, the anchors of a cell innermost."""
    _, channels, height, width = output.shape
    grid = output[0].reshape(channels // columns, columns, height, width)
    return grid.permute(2, 3, 0, 1).reshape(-1, columns)


def training_model(size, version="v1"):
    """A version for images of one size, which are not resized, with every candidate in the losses."""
    if version in BODIES:
        return build(version, None).train()
    return build(
        version,
        {"shorter": min(size), "longer": max(size)},
        rpn_batch_size_per_image=EVERYTHING,
        box_batch_size_per_image=EVERYTHING,
        rpn_pre_nms_top_n_train=cases.TRAINING_PRE_NMS,
        rpn_post_nms_top_n_train=cases.TRAINING_POST_NMS[version],
    ).train()


def training(batch, version="v1", steps=cases.STEPS):
    """Losses and gradients of several steps of SGD in float64, and the errors that rounding to float32 causes.

    Rounding can switch a ReLU or a maximum, or move a proposal over a threshold, which changes gradients and losses
    discontinuously. The errors therefore depend on the order of additions, and one run does not show how large they
    may be: the largest of several is taken, of torchvision in float32 and in float64 with rounded layers.

    Args:
        batch: from `cases.training_cases`.
        version: one of `LOSSES`.
        steps: number of steps.

    Returns:
        dict: `losses` float64 `[steps, L]` before each step, in the order of `LOSSES`; `gradient/NAME` float32, of the
        first step, for every trainable parameter; `own_gradients`, relative norms of their errors, the median over all
        parameters and the largest, and `own_losses`, the largest relative error of a loss: the largest of all runs.
    """
    exact = _steps(batch, version, steps, torch.float64)
    rounded = (_steps(batch, version, steps, torch.float64, seed) for seed in range(ROUNDED_RUNS))
    runs = [_steps(batch, version, steps, torch.float32), *rounded]
    for run in runs:
        print("own errors: losses {:.2g}, gradients {:.2g} (median) {:.2g}".format(*_errors(run, exact)), flush=True)
    losses, median, worst = np.max([_errors(run, exact) for run in runs], axis=0)
    return {
        "losses": exact["losses"],
        "own_losses": losses,
        "own_gradients": np.array([median, worst]),
        **{f"gradient/{name}": g.float().numpy() for name, g in exact["gradients"].items()},
    }


def sensitivity(batch, version, changes):
    """The largest relative error of a gradient that a change of the weights in their last place causes.

    Args:
        batch: from `cases.training_cases`.
        version: "v1" or "keypoint".
        changes: number of models in float32 in which every weight is the next larger or smaller number, at random;
            their gradients are compared with those of the unchanged model in float64.
    """
    exact = _steps(batch, version, 1, torch.float64)
    runs = (_steps(batch, version, 1, torch.float32, change=seed) for seed in range(changes))
    return max(_errors(run, exact)[2] for run in runs)


def _errors(found, exact):
    """Largest relative error of a loss, and the median and largest relative norm of the gradients' errors."""
    wanted = {name: g for name, g in exact["gradients"].items() if name != measure.ZERO_GRADIENT}
    gradients = [measure.relative(found["gradients"][name], g) for name, g in wanted.items()]
    return np.abs(found["losses"] / exact["losses"] - 1).max(), np.median(gradients), max(gradients)


def _round_layers(model, seed):
    """Multiply the output of each layer by random factors within half a unit of float32's last place."""
    generator = torch.Generator().manual_seed(seed)

    def rounded(_, __, output):
        if isinstance(output, torch.Tensor):
            noise = 2 * torch.rand(output.shape, generator=generator, dtype=output.dtype) - 1
            return output * (1 + UNIT_ROUNDOFF * noise)
        return output

    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(rounded)


def _change_weights(model, seed):
    """Set each weight to the next larger or smaller number, at random."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            up = torch.rand(weight.shape, generator=generator) < 0.5
            weight.copy_(torch.nextafter(weight, torch.where(up, torch.inf, -torch.inf).to(weight)))


def _steps(batch, version, steps, dtype, seed=None, change=None):
    """Losses of all steps, NumPy, and gradients of the first, tensors of float64 by name.

    Args:
        batch: from `cases.training_cases`.
        version: one of `LOSSES`.
        steps: number of steps.
        dtype: of weights, images and all computations.
        seed: of the random rounding of the layers' outputs, see `_round_layers`; None for no rounding.
        change: seed of the changes of the weights, see `_change_weights`; None for none.
    """
    model = training_model(batch["images"].shape[1:3], version).to(dtype)
    if seed is not None:
        _round_layers(model, seed)
    if change is not None:
        _change_weights(model, change)
    images = [_tensor(picture).to(dtype) for picture in batch["images"]]
    names = [name for name in batch if name != "images"]
    truth = [{name: torch.from_numpy(batch[name][i]) for name in names} for i in range(len(images))]
    # Keypoints stay in float32, which torchvision requires.
    truth = [{**of_image, "boxes": of_image["boxes"].to(dtype)} for of_image in truth]
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(
        trained.values(), cases.RATES[version], momentum=cases.MOMENTUM, weight_decay=cases.DECAY
    )
    losses, gradients = [], None
    for _ in range(steps):
        terms = model(images, truth)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        losses.append([terms[name].item() for name in LOSSES[version]])
        gradients = gradients or {name: p.grad.double().clone() for name, p in trained.items()}
        optimizer.step()
    return {"losses": np.array(losses), "gradients": gradients}


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    photos = cases.photos_folder()
    for version in generated.VERSIONS:
        model = build(version, cases.FULL)
        torch.save(model.state_dict(), folder / f"{version}.pth")
        for name, picture in cases.inputs(version, photos).items():
            found = answers(model, picture)
            np.savez(folder / f"{version}_{name}.npz", picture=picture, **found)
            print(f"{version} {name}: {len(found['scores'])} detections", flush=True)
    for version, batch in cases.training_cases(cases.training_pictures(photos)).items():
        found = training(batch, version)
        np.savez(folder / f"training_{version}.npz", **found)
        print(f"{version}: training losses, first and last step:", *np.round(found["losses"][[0, -1]], 4))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
