"""The same in PyTorch: a gradient, and norms by torch.func."""

from collections.abc import Callable
from typing import Any

import torch
import works
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

Piece = Callable[[], dict[str, Any]]


def _net(net: str) -> torch.nn.Module:
    modules: list[torch.nn.Module] = []
    weights = works.layers(net)
    for k, (w, b) in enumerate(weights):
        w, b = torch.tensor(w), torch.tensor(b)
        if w.ndim == 4:
            layer: Any = torch.nn.Conv2d(w.shape[2], w.shape[3], 3, padding=1)
            layer.weight.data = w.permute(3, 2, 0, 1).contiguous()
            after = [torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
        else:
            layer = torch.nn.Linear(*w.shape)
            layer.weight.data = w.T.contiguous()
            after = [] if k == len(weights) - 1 else [torch.nn.ReLU()]
        layer.bias.data = b
        flat = w.ndim == 2 and k and weights[k - 1][0].ndim == 4
        modules += [*([torch.nn.Flatten()] if flat else []), layer, *after]
    return torch.nn.Sequential(*modules)


def _data(net: str, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = map(torch.tensor, works.batch(net, size))
    return (x.permute(0, 3, 1, 2).contiguous() if x.ndim == 4 else x), y


def gradient(*, net: str, size: int) -> Piece:
    """One forward and backward pass."""
    torch.set_num_threads(1)
    model, (x, y) = _net(net), _data(net, size)

    def run() -> dict[str, Any]:
        model.zero_grad()
        cross_entropy(model(x), y).backward()
        return {}

    return run


def norms(*, net: str, size: int) -> Piece:
    """Per-sample gradients by torch.func, 32 at once."""
    torch.set_num_threads(1)
    model, (x, y) = _net(net), _data(net, size)
    params = {name: p.detach() for name, p in model.named_parameters()}

    def loss(params: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return cross_entropy(functional_call(model, params, (x[None],)), y[None])

    gradients = vmap(grad(loss), (None, 0, 0))

    def run() -> dict[str, Any]:
        parts = []
        for begin in range(0, size, 32):
            own = gradients(params, x[begin : begin + 32], y[begin : begin + 32])
            parts.append(sum(g.flatten(1).square().sum(1) for g in own.values()).sqrt())
        return {"numbers": torch.cat(parts)[:4].tolist()}

    return run


PIECES = {"gradient": gradient, "norms": norms}
