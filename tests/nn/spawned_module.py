"""Run by test_drop_in.py: a layer with a spectral norm goes to a spawned process."""

import torch

import ganlstm_fast as gf


def run(rank: int, model: torch.nn.Module, x: torch.Tensor, out: torch.Tensor) -> None:
    out.copy_(model(x).detach())


if __name__ == "__main__":
    layer = gf.SNLinear(3, 4).eval()
    inputs, outputs = torch.ones(2, 3), torch.zeros(2, 4).share_memory_()
    torch.multiprocessing.spawn(run, (layer, inputs, outputs), nprocs=1)
    print("equal" if torch.equal(outputs, layer(inputs)) else "different")
