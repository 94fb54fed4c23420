"""Torchvision's side of `gpu.py`, which starts it. Needs torch, torchvision and NumPy."""

import resource

import scenes
import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.misc import FrozenBatchNorm2d

from peers import torchvision_maskrcnn


class Theirs:
    """Mask R-CNN of torchvision, bfloat16 by autocast, channels-last.

    Args:
        tiny: whether the network is the small one, with random weights.
        compiled: whether torch.compile compiles the network's parts.
        classes: number of classes without background.
        objects: instances per image in training.
        size: (height, width) of the images.
        canvas: not used: the model computes its own.
    """

    def __init__(self, tiny, compiled, classes, objects, size, canvas):
        torch.manual_seed(0)
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.classes, self.objects, self.size, self.canvas = classes, objects, size, canvas
        self.model = build(tiny, classes, size).to(self.device, memory_format=torch.channels_last)
        self.model.backbone.register_forward_pre_hook(_channels_last)
        self.mask_rois = 0
        self.model.roi_heads.mask_head.register_forward_pre_hook(self._count)
        weights = [w for w in self.model.parameters() if w.requires_grad]
        self.optimizer = torch.optim.SGD(weights, lr=1e-6, momentum=0.9, weight_decay=1e-4, fused=True)
        self.compiled = False
        self._postprocess = self.model.transform.postprocess
        if compiled:
            self._compile()

    def prepare(self, mode, batch):
        """A function that runs a work once, waits for its end and returns facts."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        self.model.transform.postprocess = self._postprocess
        return getattr(self, f"_{mode}")(batch)

    def memory(self):
        """Peak memory in bytes: of the GPU's allocator since `prepare`, or of the process on a CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def _compile(self):
        """Compile the parts that do not depend on the data; heads with a varying number of regions are dynamic."""
        heads = self.model.roi_heads
        self.model.backbone.compile()
        self.model.rpn.head.compile()
        heads.box_head.compile(dynamic=True)
        heads.mask_head.compile(dynamic=True)
        heads.mask_predictor.compile(dynamic=True)

    def _autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16)

    def _wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _count(self, module, inputs):
        self.mask_rois = len(inputs[0])

    def _flops(self, run):
        with FlopCounterMode(display=False) as counter:
            run()
        return float(counter.get_total_flops())

    def _images(self, batch):
        images = [scenes.scene(*self.size, self.objects, seed)[0] for seed in range(batch)]
        return [_tensor(image, self.device) for image in images]

    def _train(self, batch):
        x, y = scenes.training_batch(batch, self.size, self.size, self.objects, self.classes)
        images, targets = torchvision_maskrcnn.as_tensors(x, y)
        images = [image.to(self.device) for image in images]
        targets = [{name: tensor.to(self.device) for name, tensor in target.items()} for target in targets]
        self.model.train()

        def step():
            with self._autocast():
                losses = self.model(images, targets)
            self.optimizer.zero_grad()
            sum(losses.values()).backward()
            self.optimizer.step()

        flops = None if self.compiled else self._flops(step)

        def run():
            step()
            self._wait()
            return {"flops": flops, "mask_rois": self.mask_rois / batch, "positives": self.mask_rois / batch}

        return run

    @torch.inference_mode()
    def _network(self, batch):
        images = self._images(batch)
        self.model.eval()
        # Boxes and masks are not pasted; the work `detect` includes pasting.
        self.model.transform.postprocess = lambda found, *_: found

        @torch.inference_mode()
        def run():
            with self._autocast():
                found = self.model(images)
            self._wait()
            return {"detections": sum(len(one["scores"]) for one in found)}

        flops = None if self.compiled else self._flops(run)
        return lambda: {"flops": flops, **run()}

    def _detect(self, batch):
        images = [scenes.scene(*self.size, self.objects, seed)[0] for seed in range(batch)]
        self.model.eval()

        @torch.inference_mode()
        def run():
            with self._autocast():
                found = self.model([_tensor(image, self.device) for image in images])
            for one in found:
                one.update(masks=one["masks"] >= 0.5, scores=one["scores"].float(), boxes=one["boxes"].float())
                one.update({name: tensor.cpu().numpy() for name, tensor in one.items()})
            return {"detections": sum(len(one["scores"]) for one in found)}

        return run


def build(tiny, classes, size):
    """`maskrcnn_resnet50_fpn` with frozen batch norm and the generated weights, or a small one with random weights."""
    scale = dict(min_size=min(size), max_size=max(size))
    if not tiny:
        return torchvision_maskrcnn.build("channels-last", **scale)
    body = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=3)
    few = {f"rpn_{when}_nms_top_n_{phase}": 20 for when in ("pre", "post") for phase in ("train", "test")}
    few |= dict(
        box_batch_size_per_image=16, rpn_batch_size_per_image=16, box_score_thresh=0.0, box_detections_per_img=5
    )
    anchors = AnchorGenerator(((12,), (24,), (48,), (64,), (96,)), ((0.5, 1.0, 2.0),) * 5)
    return MaskRCNN(body, classes + 1, rpn_anchor_generator=anchors, **scale, **few)


def _channels_last(module, inputs):
    return (inputs[0].contiguous(memory_format=torch.channels_last),)


def _tensor(image, device):
    """uint8 [H, W, 3] to float32 [3, H, W] in 0…1 on the device."""
    return torch.from_numpy(image).to(device).permute(2, 0, 1).float() / 255
