"""ResNet-10/18/34/50/101 (He et al. 2015) and ResNeXt (Xie et al. 2017) as in torchvision: v1.5 strides, no bias."""

import keras
from keras import layers

from keras_maskrcnn.backbones.backbone import Backbone
from keras_maskrcnn.layers.norm import norm as make_norm

# Groups and channels per group of the ResNeXts that torchvision names, by depth.
RESNEXTS = {50: ((32, 4),), 101: ((32, 8), (64, 4))}
LEVELS = {"C2": 1, "C3": 2, "C4": 3, "C5": 4}  # the stage that each level is the output of
BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


@keras.saving.register_keras_serializable(package="keras_maskrcnn")
class ResNet(Backbone):
    """Residual network without classifier: `[B, H, W, C]` to {"C2", "C3", "C4", "C5"} with strides 4 to 32.

    Args:
        depth: 18, 34, 50 or 101; or 10, half of 18, for experiments and tests.
        norm: "batch", "frozen_batch" or "group", see `layers.norm.norm`.
        width: channels of the stem; 64 in the paper, 32 for a quarter of the cost.
        groups: groups of the 3×3 convolution of a bottleneck: 1, or 32 or 64 for ResNeXt (Xie et al. 2017, section 3).
        width_per_group: channels of each of these groups in the first stage of a network of width 64. The 3×3
            convolutions have `width_per_group`/64 · `groups` times the channels of a ResNet's; 64 with one group.
        freeze_at: 0 trains all layers, 1 freezes the stem, 2 also the first stage, and so on up to 5.
        norm_epsilon: added to the variance by the normalisation.
        stride_in_1x1: whether the stride of a bottleneck is in its first 1×1 convolution (He et al. 2015; weights of
            detectron2 and matterport) or in the 3×3 convolution ("v1.5", torchvision).
        stem_pool: "symmetric" pads the first pooling by one pixel on all sides; "same" is TensorFlow's rule, which pads
            inputs of even size at the bottom and on the right only.
        pixel_mean: mean of the R, G, B values 0…255 that the weights expect, which `MaskRCNN` takes as its default;
            None for ImageNet's as torchvision has it.
        pixel_std: their standard deviation; None likewise.
        input_channels: C, channels of the images.
        dilated: whether the fifth stage has stride 1 and 3×3 convolutions of dilation 2, so that C5 has stride 16
            ("DC5", Dai et al. 2017, section 3.2; detectron2's RES5_DILATION).
        output_stride: stride of C5: 32, or 16 or 8 for stages with dilation instead of their stride, from their second
            block on (torchvision's `replace_stride_with_dilation`); with `dilated` from the first one on.

    Raises:
        ValueError: for an unknown depth, `output_stride` or `stem_pool`, `freeze_at` outside 0…5, groups in a network
            without bottlenecks, or groups without a channel.
    """

    def __init__(
        self,
        depth=50,
        norm="batch",
        width=64,
        groups=1,
        width_per_group=64,
        freeze_at=0,
        norm_epsilon=1e-5,
        stride_in_1x1=False,
        stem_pool="symmetric",
        pixel_mean=None,
        pixel_std=None,
        input_channels=3,
        dilated=False,
        output_stride=32,
        dtype=None,
        name=None,
    ):
        if depth not in BLOCKS:
            raise ValueError(f"depth={depth} is not one of {tuple(BLOCKS)}")
        if freeze_at not in range(6):
            raise ValueError(f"freeze_at={freeze_at} is not one of 0, 1, 2, 3, 4, 5")
        if stem_pool not in ("symmetric", "same"):
            raise ValueError(f"stem_pool={stem_pool!r} is not 'symmetric' or 'same'")
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride={output_stride!r} is not one of 8, 16, 32")
        _check_groups(depth, width, groups, width_per_group)
        make = _Builder(norm, norm_epsilon, stride_in_1x1, dtype, groups)
        block, expansion = (make.basic_block, 1) if depth < 50 else (make.bottleneck, 4)
        inputs = keras.Input((None, None, input_channels), name="images", dtype="float32")
        x = make.conv_norm(inputs, width, 7, stride=2, name="stem")
        x = make.stem_pool(x, stem_pool)
        outputs = {}
        for stage, blocks in enumerate(BLOCKS[depth], start=1):
            channels = width * 2 ** (stage - 1)
            for i in range(blocks):
                stride, make.dilation = _steps(stage, i == 0, output_stride, dilated)
                inner = channels * width_per_group // 64 * groups
                x = block(x, inner, channels * expansion, stride, name=f"stage{stage}_block{i + 1}")
            outputs[f"C{stage + 1}"] = x
        usual = f"resnet{depth}" if groups == 1 else f"resnext{depth}_{groups}x{width_per_group}d"
        super().__init__(inputs=inputs, outputs=outputs, name=name or usual)
        self.depth, self.norm, self.width, self.freeze_at = depth, norm, width, freeze_at
        self.groups, self.width_per_group = groups, width_per_group
        self.norm_epsilon, self.stride_in_1x1, self.stem_pool = norm_epsilon, stride_in_1x1, stem_pool
        self.pixel_mean, self.pixel_std = (None if v is None else tuple(v) for v in (pixel_mean, pixel_std))
        self.input_channels, self.dilated, self.output_stride = input_channels, dilated, output_stride
        self._dtype_argument = dtype
        self.freeze_stages(freeze_at, LEVELS)


def _steps(stage, is_first, output_stride, dilated):
    """Stride of a block, and dilation of its 3×3 convolutions."""
    limit, usual = min(output_stride, 16) if dilated else output_stride, 2 ** (stage + 1)  # strides of C5, and here
    before, after = max(1, usual // 2 // limit), max(1, usual // limit)
    stride = 2 if is_first and stage > 1 and usual <= limit else 1
    return stride, before if is_first and not dilated else after


def _check_groups(depth, width, groups, width_per_group):
    if groups < 1 or width * width_per_group // 64 < 1:
        given = f"width={width}, groups={groups}, width_per_group={width_per_group}"
        raise ValueError(f"{given}: there must be a group, and a channel in each group")
    if depth < 50 and (groups, width_per_group) != (1, 64):
        raise ValueError(f"groups={groups}, width_per_group={width_per_group}: depth={depth} has no bottlenecks")


class _Builder:
    """Blocks of a residual network with one kind of normalisation and one dtype policy."""

    def __init__(self, norm, norm_epsilon, stride_in_1x1, dtype, groups=1):
        self.norm, self.norm_epsilon, self.stride_in_1x1, self.dtype = norm, norm_epsilon, stride_in_1x1, dtype
        self.dilation = 1  # of 3×3 convolutions
        self.groups = groups

    def stem_pool(self, x, padding):
        """3×3 max pooling with stride 2."""
        if padding == "same":
            return layers.MaxPooling2D(3, 2, padding="same", name="stem_pool", dtype=self.dtype)(x)
        x = layers.ZeroPadding2D(1, name="stem_pool_pad", dtype=self.dtype)(x)
        # After ReLU the minimum value is 0, so zero padding equals padding with minus infinity.
        return layers.MaxPooling2D(3, 2, name="stem_pool", dtype=self.dtype)(x)

    def conv_norm(self, x, channels, size, stride=1, relu=True, name="", groups=1):
        """Convolution with symmetric padding (torch's rule, not TensorFlow's "same"), normalisation, ReLU."""
        if stride > 1 and size == 1:
            # Subsampling equals a strided convolution, at the same speed, and avoids a bug: oneDNN's filter gradient of
            # a strided 1×1 convolution writes past its buffer on small maps with few channels (TensorFlow 2.21).
            x, stride = layers.MaxPooling2D(1, stride, name=f"{name}_subsample", dtype=self.dtype)(x), 1
        elif stride > 1:
            x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad", dtype=self.dtype)(x)
        x = layers.Conv2D(
            channels,
            size,
            strides=stride,
            padding="valid" if stride > 1 else "same",
            dilation_rate=self.dilation if size == 3 else 1,
            groups=groups,
            use_bias=False,
            kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
            name=f"{name}_conv",
            dtype=self.dtype,
        )(x)
        x = make_norm(self.norm, f"{name}_norm", self.dtype, self.norm_epsilon)(x)
        return layers.ReLU(name=f"{name}_relu", dtype=self.dtype)(x) if relu else x

    def basic_block(self, x, channels, outputs, stride, name):
        """Two 3×3 convolutions with a shortcut."""
        y = self.conv_norm(x, channels, 3, stride, name=f"{name}_1")
        y = self.conv_norm(y, outputs, 3, relu=False, name=f"{name}_2")
        return self._add(x, y, stride, name)

    def bottleneck(self, x, channels, outputs, stride, name):
        """1×1, 3×3 and 1×1 convolutions with a shortcut."""
        first, second = (stride, 1) if self.stride_in_1x1 else (1, stride)
        y = self.conv_norm(x, channels, 1, first, name=f"{name}_1")
        y = self.conv_norm(y, channels, 3, second, name=f"{name}_2", groups=self.groups)
        y = self.conv_norm(y, outputs, 1, relu=False, name=f"{name}_3")
        return self._add(x, y, stride, name)

    def _add(self, x, y, stride, name):
        if stride > 1 or x.shape[-1] != y.shape[-1]:
            x = self.conv_norm(x, y.shape[-1], 1, stride, relu=False, name=f"{name}_shortcut")
        y = layers.Add(name=f"{name}_add", dtype=self.dtype)([x, y])
        return layers.ReLU(name=f"{name}_relu", dtype=self.dtype)(y)
