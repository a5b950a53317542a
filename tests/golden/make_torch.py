"""Write `torch_zip.pth` and `torch_stream.pth`, with genuine PyTorch: `python make_torch.py FOLDER`."""

import argparse
import sys
from collections import OrderedDict
from pathlib import Path

import torch


def content():
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    state = OrderedDict()
    state["module.transposed"] = base.T
    state["module.every_second"] = base[:, ::2]
    state["module.parameter"] = torch.nn.Parameter(torch.tensor([1.5, -2.0]))
    state["module.half"] = torch.tensor([0.1, 65504.0], dtype=torch.float16)
    state["module.brain"] = torch.tensor([[0.1, -3e38]], dtype=torch.bfloat16)
    state["module.double"] = torch.tensor([1e-3], dtype=torch.float64)
    state["module.steps"] = torch.tensor(7)
    state["module.flags"] = torch.tensor([True, False])
    state["module.none"] = torch.zeros(0, 3)
    arguments = argparse.Namespace(lr=0.02, name="a", size=torch.Size([2, 3]), device=torch.device("cpu"))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(3))], 0.1, momentum=0.9).state_dict()
    return {"model": state, "optimizer": optimizer, "epoch": 3, "args": arguments, "type": torch.float32}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.save(content(), folder / "torch_zip.pth")
    torch.save(content(), folder / "torch_stream.pth", _use_new_zipfile_serialization=False)
