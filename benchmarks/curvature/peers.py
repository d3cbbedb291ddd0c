"""The same questions put to SciPy, torch.func, PyHessian and curvlinops."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import nets
import numpy as np
import torch
from ours import Piece, question, vector
from scipy.sparse.linalg import LinearOperator, eigsh
from torch.func import functional_call, grad, jvp

from thalweg import curvature


def _arpack(case: nets.Case) -> Callable[[], Any]:
    """ARPACK on our products, to the same residual."""

    def run() -> dict[str, Any]:
        operator = curvature.hessian(case.problem, case.params)
        taken = []

        def apply(v: np.ndarray) -> np.ndarray:
            taken.append(1)
            return np.asarray(operator.matvec(jnp.asarray(v.reshape(-1), jnp.float32)))

        matrix = LinearOperator((operator.size,) * 2, matvec=apply, dtype=np.float32)
        start = np.random.default_rng(0).standard_normal(operator.size).astype(np.float32)
        values = eigsh(matrix, k=1, which="LA", tol=1e-3, v0=start, return_eigenvectors=False)
        return {"value": float(values[0]), "products": len(taken)}

    return run


class _Net(torch.nn.Module):
    """The nets of nets.py with the same weights."""

    def __init__(self, params: Any):
        super().__init__()
        if isinstance(params, dict):
            layers: list[torch.nn.Module] = []
            for name, stride in nets.STRIDES.items():
                kernel = np.asarray(params[name])
                layer = torch.nn.Conv2d(*kernel.shape[2:], 3, stride, bias=False)
                layer.weight.data = torch.tensor(kernel.transpose(3, 2, 0, 1).copy())
                # "SAME" with stride 2 on even sizes pads behind alone.
                layers += [torch.nn.ZeroPad2d((0, 1, 0, 1) if stride == 2 else 1), layer]
                layers += [torch.nn.ReLU()]
            self.body = torch.nn.Sequential(*layers)
            self.head = torch.nn.Linear(*params["w"].shape, bias=False)
            self.head.weight.data = torch.tensor(np.asarray(params["w"]).T.copy())
            return
        body = []
        for layer in params:
            kernel = np.asarray(layer["w"])
            if kernel.ndim == 4:
                body += [_with(torch.nn.Conv2d(*kernel.shape[2:], 3, padding=1), layer)]
                body += [torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
                continue
            if any(isinstance(part, torch.nn.MaxPool2d) for part in body[-1:]):
                body += [_Flat()]
            body += [_with(torch.nn.Linear(*kernel.shape), layer), torch.nn.ReLU()]
        self.head = body[-2]
        self.body = torch.nn.Sequential(*body[:-2])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.body(x)
        if h.dim() == 4:
            # The order of channels that JAX flattens.
            h = h.permute(0, 2, 3, 1).flatten(1)
        return self.head(h)


class _Flat(torch.nn.Module):
    """Images as vectors, the channels last, as JAX flattens them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 3, 1).flatten(1)


def _with(module: Any, layer: Any) -> Any:
    """A module with these weights."""
    kernel = np.asarray(layer["w"])
    order = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
    module.weight.data = torch.tensor(kernel.transpose(order).copy())
    module.bias.data = torch.tensor(np.asarray(layer["b"]))
    return module


class _Torch:
    """A case in torch."""

    def __init__(self, case: nets.Case):
        torch.set_num_threads(1)
        self.net = _Net(case.params)
        x, y = (np.asarray(part) for part in case.problem.data)
        x = x.transpose(0, 3, 1, 2).copy() if x.ndim == 4 else x
        self.x, self.y = torch.tensor(x), torch.tensor(y).long()
        self.params = {name: p.detach() for name, p in self.net.named_parameters()}
        rng = np.random.default_rng(0)
        self.direction = {
            name: torch.tensor(rng.standard_normal(p.shape).astype(np.float32))
            for name, p in self.params.items()
        }

    def loss(self, params: Any) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(functional_call(self.net, params, self.x), self.y)


def _torch_gradient(case: nets.Case) -> Callable[[], Any]:
    own = _Torch(case)

    def run() -> dict[str, Any]:
        loss = torch.nn.functional.cross_entropy(own.net(own.x), own.y)
        torch.autograd.grad(loss, list(own.net.parameters()))
        return {"loss": float(loss)}

    return run


def _torch_product(case: nets.Case) -> Callable[[], Any]:
    own = _Torch(case)

    def run() -> dict[str, Any]:
        product = jvp(grad(own.loss), (own.params,), (own.direction,))[1]
        return {"norm": float(sum(torch.sum(p**2) for p in product.values())) ** 0.5}

    return run


def _pyhessian(case: nets.Case) -> Any:
    from pyhessian import hessian

    own = _Torch(case)
    return hessian(own.net, torch.nn.CrossEntropyLoss(), data=(own.x, own.y), cuda=False)


def _pyhessian_largest(case: nets.Case) -> Callable[[], Any]:
    def run() -> dict[str, Any]:
        values, _ = _pyhessian(case).eigenvalues(maxIter=200, tol=1e-4)
        return {"value": float(values[0])}

    return run


def _pyhessian_trace(case: nets.Case) -> Callable[[], Any]:
    def run() -> dict[str, Any]:
        values = _pyhessian(case).trace(maxIter=30, tol=0)
        return {"value": float(np.mean(values)), "probes": len(values)}

    return run


def _curvlinops(case: nets.Case) -> Callable[[], Any]:
    from curvlinops import HessianLinearOperator

    own = _Torch(case)
    operator = HessianLinearOperator(
        own.net,
        torch.nn.CrossEntropyLoss(),
        list(own.net.parameters()),
        [(own.x, own.y)],
        check_deterministic=False,
    )
    v = torch.tensor(np.asarray(vector(case.params)))

    def run() -> dict[str, Any]:
        return {"norm": float(torch.linalg.norm(operator @ v))}

    return run


PIECES: dict[str, Callable[..., Piece]] = {
    "arpack": question(_arpack),
    "torch-gradient": question(_torch_gradient),
    "torch-product": question(_torch_product),
    "pyhessian-largest": question(_pyhessian_largest),
    "pyhessian-trace": question(_pyhessian_trace),
    "curvlinops-product": question(_curvlinops),
}
