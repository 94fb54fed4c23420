"""Options of the pooling of regions, in a head and in a model."""

import pytest

from keras_maskrcnn.heads.region_head import Regions
from keras_maskrcnn.layers import RoIAlign, RoIPool, RoIWarp


def test_options_reach_the_layer():
    given = dict(canonical_size=56, canonical_level=3)
    sampled = dict(aligned=True, sampling_ratio=1, positions="random", reduce="max")
    for pooling, kind in (("align", RoIAlign), ("warp", RoIWarp)):
        regions = Regions(pooling=pooling, implementation="sparse", level=4, **given, **sampled)
        config = regions.layer(5, (16,), seed=3).get_config()
        wanted = dict(output_size=5, strides=[16], implementation="sparse", seed=3, name="align", **given, **sampled)
        assert type(regions.layer(5, (16,))) is kind and {name: config[name] for name in wanted} == wanted
        assert Regions.of(regions.asdict()) == regions
    config = (layer := Regions(pooling="pool", implementation="sorted", **given).layer(5, (8, 16))).get_config()
    wanted = dict(output_size=5, strides=[8, 16], implementation="sorted", name="align", **given)
    assert type(layer) is RoIPool and {name: config[name] for name in wanted} == wanted


def test_options_of_an_older_file_mean_the_same():
    old = {"aligned": True, "sampling_ratio": 2, "canonical_size": 224, "canonical_level": 4}
    old |= {"implementation": "auto", "positions": "regular", "level": None}
    layer = Regions.of(old).layer(7, (4, 8))
    assert type(layer) is RoIAlign and layer.reduce == "average" and layer.aligned


@pytest.mark.parametrize(
    "options, reason",
    [
        (dict(pooling="crop"), "regions pooling='crop' is not one of 'align', 'warp', 'pool'"),
        (dict(reduce="sum"), "regions reduce='sum' is not one of 'average', 'max'"),
        (dict(pooling="pool", aligned=True), "aligned=True does not apply to pooling='pool'"),
        (dict(pooling="pool", sampling_ratio=1), "sampling_ratio=1 does not apply to pooling='pool'"),
        (dict(pooling="pool", positions="random"), "positions='random' does not apply to pooling='pool'"),
    ],
)
def test_options_that_do_not_fit_are_rejected(options, reason):
    with pytest.raises(ValueError, match=reason) as error:
        Regions(**options)
    assert "\n" not in str(error.value)
