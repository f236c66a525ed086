"""The linear layer against PyTorch's: numbers, gradients of every order, precisions, and who looks on."""

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import TypeCheckError
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from transformer_nb.linear import Linear, Product, autocast, linear, onednn

SHAPES = [(700, 64, 48), (2, 300, 128, 65), (1, 2048, 1024), (2048, 1024), (5, 1, 600, 700), (3, 7, 11)]


def tensors(*shape, dtype=torch.float32, bias=True):
    "x, W, b for (*batch, in, out)."
    torch.manual_seed(0)
    *batch, features, out = shape
    made = [torch.randn(*batch, features), torch.randn(out, features), torch.randn(out) if bias else None]
    return [None if t is None else t.to(dtype).requires_grad_() for t in made]


def close(ours, theirs, bound):
    return all(((a - b).abs().max() <= bound * b.abs().max()) and a.dtype == b.dtype and a.shape == b.shape for a, b in zip(ours, theirs, strict=True))


def all_of(product, x, weight, bias, autocast=False):
    "The product and its gradients."
    inputs = [t for t in (x, weight, bias) if t is not None]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = product(x, weight, bias)
    torch.manual_seed(1)
    return [y, *torch.autograd.grad(y, inputs, torch.randn_like(y))]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.float64, 1e-12), (torch.bfloat16, 2e-2)])
def test_the_product_and_its_gradients_are_torchs(shape, dtype, bound, bias):
    inputs = tensors(*shape, dtype=dtype, bias=bias)
    assert close(all_of(linear, *inputs), all_of(F.linear, *inputs), bound)


def test_autocast_rounds_as_torch_does():
    inputs = tensors(700, 64, 48)
    ours, theirs = all_of(linear, *inputs, autocast=True), all_of(F.linear, *inputs, autocast=True)
    assert ours[0].dtype == torch.bfloat16 and ours[1].dtype == torch.float32
    assert close(ours, theirs, 2e-2)
    inputs = tensors(700, 64, 48, dtype=torch.float64)
    assert all_of(linear, *inputs, autocast=True)[0].dtype == all_of(F.linear, *inputs, autocast=True)[0].dtype


def test_strided_inputs_are_read_as_they_are():
    x, weight, bias = torch.randn(128, 900).t(), torch.randn(96, 128)[::2], torch.randn(96)[::2]
    assert linear(x, weight, bias).allclose(F.linear(x, weight, bias), atol=1e-4)
    assert linear(x[:, :64], weight[:, ::2], bias).allclose(F.linear(x[:, :64], weight[:, ::2], bias), atol=1e-4)


def test_gradients_of_gradients():
    def penalty(product):
        x, weight, bias = tensors(700, 64, 48)
        (slope,) = torch.autograd.grad(product(x, weight, bias).square().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), (x, weight, bias))

    assert close(penalty(linear), penalty(F.linear), 1e-5)


def test_a_gradient_that_nobody_wants_is_not_computed():
    x, weight, bias = tensors(700, 64, 48)
    linear(x.detach(), weight, bias.detach()).sum().backward()
    assert weight.grad is not None and x.grad is None and bias.grad is None


@pytest.mark.skipif(onednn() is None, reason="this PyTorch was built without MKL or oneDNN")
def test_large_products_are_onednns_and_small_ones_are_not():
    x, weight, bias = tensors(700, 64, 48)
    assert type(linear(x, weight, bias).grad_fn).__name__ == f"{Product.__name__}Backward"
    assert type(linear(x[:3], weight, bias).grad_fn).__name__ != f"{Product.__name__}Backward"


def test_who_looks_on_sees_what_they_know():
    x, weight, bias = tensors(700, 64, 48)
    with FlopCounterMode(display=False) as counter:
        linear(x, weight, bias)
    assert counter.get_total_flops() == 2 * 700 * 64 * 48
    slope = torch.func.grad(lambda w: linear(x, w, bias).sum())(weight)
    assert slope.allclose(torch.autograd.grad(linear(x, weight, bias).sum(), weight)[0], atol=1e-3)
    each = torch.func.vmap(lambda row: linear(row, weight, bias))(x.expand(3, 700, 64))
    assert each.allclose(F.linear(x, weight, bias).expand(3, 700, 48), atol=1e-4)


def test_what_does_not_fit_is_refused_as_torch_does():
    x, weight, bias = tensors(700, 64, 48)
    with pytest.raises((RuntimeError, TypeCheckError), match="shapes cannot be multiplied|Type-check error"):
        linear(x, weight[:, :32], bias)
    with pytest.raises(RuntimeError, match="same dtype|expected m1 and m2"):
        linear(x, weight.double(), bias)


def test_the_module_is_nn_linear():
    ours, theirs = Linear(64, 48), nn.Linear(64, 48)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(10, 70, 64)
    assert isinstance(ours, nn.Linear) and ours(x).allclose(theirs(x), atol=1e-5)


def test_a_device_without_numbers_is_served_too():
    assert linear(torch.empty(700, 64, device="meta"), torch.empty(48, 64, device="meta")).shape == (700, 48)
    assert autocast(torch.empty(3, device="meta")).device.type == "meta"
