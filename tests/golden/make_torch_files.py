"""Makes torch_zip.pth and torch_legacy.pth: one small checkpoint as torch.save writes it, in both of its formats.

Run it in an environment with torch (made with torch 2.13):

    python tests/golden/make_torch_files.py

The numbers are small multiples of 1/4, which every kind of number here holds exactly; tests/weights/test_files.py knows
them by heart.
"""

import argparse
import pathlib

import torch

HERE = pathlib.Path(__file__).parent


def checkpoint():
    """A state dict with views, a shared tensor, a parameter and three kinds of number, among what training adds."""
    model = torch.nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.copy_(torch.arange(6).reshape(2, 3) / 4)
        model.bias.copy_(torch.tensor([-0.5, 0.25]))
    state = model.state_dict()  # an OrderedDict with an attribute _metadata
    state["transposed"] = state["weight"].t()
    state["column"] = state["weight"][:, 1]
    state["parameter"] = model.bias
    state["half"] = (torch.arange(4) / 4).half()
    state["bfloat16"] = (torch.arange(4).reshape(2, 2) / 4).bfloat16()
    state["count"] = torch.tensor(7)
    return {"model": state, "epoch": 3, "args": argparse.Namespace(lr=0.02, device=torch.device("cpu"))}


if __name__ == "__main__":
    torch.save(checkpoint(), HERE / "torch_zip.pth")
    torch.save(checkpoint(), HERE / "torch_legacy.pth", _use_new_zipfile_serialization=False)
