"""Makes keypoints.npz: heat-map targets and decoded keypoints of torchvision, on inputs drawn by a seeded generator.

Run it in an environment with torch and torchvision (made with torch 2.13, torchvision 0.28):

    python tests/golden/make_keypoints.py

Regions are smaller and larger than a heat map, of whole and of broken sides, below a pixel, and as large as a canvas.
Points are inside, outside, on the edges of their region, hidden and not labelled.
"""

import pathlib

import numpy as np
import torch
from torchvision.models.detection import roi_heads

HERE = pathlib.Path(__file__).parent
REGIONS, POINTS, CELLS = 14, 4, 28


def draw_rois(rng):
    """Regions float32 [REGIONS, 4]."""
    corner = rng.uniform(0, 300, (REGIONS, 2))
    side = np.exp(rng.uniform(np.log(4), np.log(700), (REGIONS, 2)))
    rois = np.concatenate([corner, corner + side], axis=1)
    rois[0] = [10, 20, 66, 132]
    rois[1] = [0, 0, 1333, 800]
    rois[2] = [5.5, 6.5, 5.8, 90.25]
    rois[3] = [100, 50, 212, 162]
    return rois.astype("float32")


def draw_points(rng, rois):
    """Points float32 [REGIONS, POINTS, 3] of every kind."""
    share = rng.uniform(-0.1, 1.1, (REGIONS, POINTS, 2))
    places = rois[:, None, :2] + share * (rois[:, None, 2:] - rois[:, None, :2])
    points = np.concatenate([places, rng.integers(0, 3, (REGIONS, POINTS, 1))], axis=2).astype("float32")
    points[0, :, 2] = 2
    points[0, 0, :2], points[0, 1, :2], points[0, 2, :2] = rois[0, :2], rois[0, 2:], [66, 40]
    return points


def main():
    rng = np.random.default_rng(0)
    rois = draw_rois(rng)
    points = draw_points(rng, rois)
    low = rng.integers(-64, 64, (REGIONS, CELLS, CELLS, POINTS)).astype("int8")
    maps = torch.from_numpy(low.transpose(0, 3, 1, 2).astype("float32") / 16)
    maps = torch.nn.functional.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=False).contiguous()
    logits, regions, truth = maps.requires_grad_(), torch.from_numpy(rois), torch.from_numpy(points)
    cell, valid = roi_heads.keypoints_to_heatmap(truth, regions, 2 * CELLS)
    loss = roi_heads.keypointrcnn_loss(logits, [regions], [truth], [torch.arange(REGIONS)])
    loss.backward()
    found, scores = roi_heads.heatmaps_to_keypoints(maps.detach(), regions)
    arrays = {"rois": rois, "points": points, "maps": low, "cell": cell.numpy().astype("int32"), "loss": loss.item()}
    arrays |= {"valid": valid.numpy().astype(bool), "keypoints": found.numpy(), "scores": scores.numpy()}
    arrays |= {"enlarged": maps.detach().numpy()[0, 0], "gradient": logits.grad.numpy()[0, 0]}
    np.savez_compressed(HERE / "keypoints.npz", **arrays)


if __name__ == "__main__":
    main()
