"Muon: the steps of torch.optim.Muon where that exists, the formula exactly, and nearly U V^T of every matrix."

import copy
import math

import pytest
import torch
from helpers import one_line
from torch import nn

import transformer_nb.modern.muon
from transformer_nb.modern.muon import Muon, iteration_dtype, orthogonalize

SHAPES = [(12, 5), (5, 12), (8, 8), (12, 5), (12, 5), (1, 4)]  # tall, wide, square, and several of one shape
OPTIONS = [{}, {"nesterov": False}, {"weight_decay": 0.0, "lr": 0.5}, {"momentum": 0.5, "weight_decay": 2.0}]
has_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon is in PyTorch from 2.9 on")


def matrices(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)) for shape in SHAPES]


def gradients(step):
    generator = torch.Generator().manual_seed(100 + step)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]


def take_steps(optimizer, parameters, steps=4, first=0):
    for step in range(first, first + steps):
        for p, gradient in zip(parameters, gradients(step), strict=True):
            p.grad = gradient.to(p)
        optimizer.step()
    return [p.detach() for p in parameters]


def by_formula(parameters, lr=1e-3, weight_decay=0.1, momentum=0.95, nesterov=True, steps=4):
    "What the same steps come to in float64, one matrix at a time, by the singular values."
    result = []
    for i, W in enumerate(p.detach().double() for p in parameters):
        mean = torch.zeros_like(W)
        for step in range(steps):
            G = gradients(step)[i]
            mean = momentum * mean + (1 - momentum) * G
            U, S, Vh = torch.linalg.svd((1 - momentum) * G + momentum * mean if nesterov else mean, full_matrices=False)
            S = S / S.norm()
            for _ in range(5):
                S = 3.4445 * S - 4.7750 * S**3 + 2.0315 * S**5
            W = W * (1 - lr * weight_decay) - lr * max(1, W.shape[0] / W.shape[1]) ** 0.5 * (U * S) @ Vh
        result.append(W)
    return result


@pytest.mark.parametrize("options", OPTIONS)
def test_its_steps_are_those_of_the_formula(dtype, options):
    parameters = matrices(dtype)
    expected = by_formula(parameters, **options)
    for ours, exact in zip(take_steps(Muon(parameters, **options), parameters), expected, strict=True):
        assert ours.dtype == dtype
        near = 1e-5 if dtype == torch.float32 else 1e-12
        torch.testing.assert_close(ours.double(), exact, rtol=near, atol=near)


@has_muon
@pytest.mark.parametrize("options", OPTIONS)
def test_its_steps_are_those_of_torch_to_the_digits_of_bfloat16(options):
    ours, theirs = matrices(), matrices()
    start = [p.detach().clone() for p in ours]
    take_steps(Muon(ours, **options), ours)
    take_steps(torch.optim.Muon(theirs, **options), theirs)
    for before, a, b in zip(start, ours, theirs, strict=True):
        way, other_way = (a - before).flatten(), (b - before).flatten()
        assert torch.cosine_similarity(way, other_way, dim=0) > 0.998 and abs(way.norm() / other_way.norm() - 1) < 0.02


@has_muon
@pytest.mark.parametrize("options", OPTIONS)
def test_its_steps_are_those_of_torch_in_float64(options, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self.clone())  # torch rounds to bfloat16 first
    ours, theirs = matrices(torch.float64), matrices(torch.float64)
    take_steps(Muon(ours, **options), ours)
    take_steps(torch.optim.Muon(theirs, **options), theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@has_muon
def test_defaults_and_state_are_those_of_torch():
    ours, theirs = matrices(), matrices()
    mine, torchs = Muon(ours), torch.optim.Muon(theirs)
    assert mine.defaults.items() <= torchs.defaults.items()
    take_steps(torchs, theirs, 2)
    mine.load_state_dict(torchs.state_dict())
    assert mine.state[ours[0]].keys() == {"momentum_buffer"}
    assert mine.state[ours[0]]["momentum_buffer"].equal(torchs.state[theirs[0]]["momentum_buffer"])


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (6, 6), (3, 9, 4), (2, 3, 5, 7)])
def test_singular_values_go_near_one_and_directions_stay(shape):
    G = torch.randn(shape, dtype=torch.float64)
    U, S, Vh = torch.linalg.svd(G, full_matrices=False)
    O = orthogonalize(G)
    along = U.mT @ O @ Vh.mT  # diagonal if the directions are the same
    values = along.diagonal(dim1=-2, dim2=-1)
    assert (along - values.diag_embed()).abs().max() < 1e-12
    assert values[S > 0.1 * S.amax(-1, keepdim=True)].sub(1).abs().max() < 0.35
    exact = U @ Vh
    assert torch.cosine_similarity(O.flatten(-2), exact.flatten(-2), dim=-1).min() > 0.95


def test_a_gradient_of_zeros_and_a_tiny_one_are_no_trouble():
    assert orthogonalize(torch.zeros(3, 4)).equal(torch.zeros(3, 4))
    assert orthogonalize(torch.randn(3, 4) * 1e-6).norm() > 1


def test_matrices_of_one_shape_go_through_one_product(monkeypatch):
    seen = []
    monkeypatch.setattr(transformer_nb.modern.muon, "orthogonalize", lambda G, steps: seen.append(tuple(G.shape)) or orthogonalize(G, steps))
    parameters = matrices()
    take_steps(Muon(parameters), parameters, 1)
    assert sorted(seen) == [(1, 1, 4), (1, 5, 12), (1, 8, 8), (3, 12, 5)]


def test_what_has_no_gradient_is_left_alone():
    parameters = matrices()
    optimizer, before = Muon(parameters), [p.detach().clone() for p in parameters]
    for p in parameters[1:]:
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert parameters[0].equal(before[0]) and parameters[0] not in optimizer.state
    assert not any(a.equal(b) for a, b in zip(parameters[1:], before[1:]))


def test_a_run_that_goes_on_is_the_run_that_never_stopped():
    whole, first, second = matrices(), matrices(), matrices()
    take_steps(Muon(whole), whole, 6)
    stopped, goes_on = Muon(first), Muon(second, lr=7.0)
    for p, q in zip(second, take_steps(stopped, first, 3)):
        p.data.copy_(q)
    goes_on.load_state_dict(copy.deepcopy(stopped.state_dict()))
    take_steps(goes_on, second, 3, first=3)
    assert all(a.equal(b) for a, b in zip(whole, second, strict=True))


def test_a_group_may_have_a_rate_of_its_own_and_schedulers_work():
    one, other = matrices()[:2]
    optimizer = Muon([{"params": [one], "lr": 0.5}, {"params": [other]}], lr=0.25)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    one.grad, other.grad = torch.ones_like(one), torch.ones_like(other)
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.125]


def test_a_closure_is_called_with_gradients():
    (weight,) = matrices()[:1]
    optimizer, before = Muon([weight]), weight.detach().clone()

    def closure():
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == before.square().sum() and not weight.equal(before)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), ()])
def test_what_is_no_matrix_is_refused(shape):
    good, bad = nn.Parameter(torch.randn(2, 2)), nn.Parameter(torch.randn(shape))
    with pytest.raises(ValueError) as error:
        Muon([good, bad])
    assert str(error.value) == f"Muon is for matrices of real numbers, got torch.float32 of shape {shape}: leave it to AdamW" and one_line(error)
    optimizer = Muon([good])
    with pytest.raises(ValueError, match="is for matrices"):
        optimizer.add_param_group({"params": [bad]})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("option, value", [("lr", -1.0), ("lr", math.nan), ("weight_decay", -0.5), ("momentum", math.nan), ("ns_steps", -1)])
def test_an_option_that_makes_no_sense_is_named(option, value):
    with pytest.raises(ValueError, match=f"{option} must be at least 0, got {value}") as error:
        Muon(matrices(), **{option: value})
    assert one_line(error)


@pytest.mark.parametrize("device, dtype, expected", [
    ("cpu", torch.float32, torch.float32), ("cpu", torch.bfloat16, torch.float32), ("cpu", torch.float64, torch.float64),
    ("cuda", torch.float32, torch.bfloat16), ("cuda", torch.bfloat16, torch.bfloat16), ("cuda", torch.float64, torch.float64),
])
def test_it_computes_in_what_the_device_is_fast_at(device, dtype, expected):
    fake = pytest.importorskip("torch._subclasses.fake_tensor")  # tensors that only say where they would be
    with fake.FakeTensorMode():
        assert iteration_dtype(torch.empty(2, 2, device=device, dtype=dtype)) == expected


def test_bfloat16_parameters_on_a_cpu_are_rounded_only_at_the_end(monkeypatch):
    seen = []
    monkeypatch.setattr(transformer_nb.modern.muon, "orthogonalize", lambda G, steps: seen.append(G.dtype) or orthogonalize(G, steps))
    parameters = matrices(torch.bfloat16)
    take_steps(Muon(parameters), parameters, 2)
    assert set(seen) == {torch.float32} and {p.dtype for p in parameters} == {torch.bfloat16}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_takes_the_steps_of_the_cpu():
    here = matrices()
    there = [nn.Parameter(p.detach().cuda()) for p in here]
    start = [p.detach().clone() for p in here]
    take_steps(Muon(here), here)
    take_steps(Muon(there), there)
    for before, a, b in zip(start, here, there, strict=True):
        assert torch.cosine_similarity((a - before).flatten(), (b.cpu() - before).flatten(), dim=0) > 0.99


def test_complex_matrices_and_sparse_gradients_are_refused_and_a_rate_may_be_a_tensor():
    with pytest.raises(ValueError, match="real numbers, got torch.complex64"):
        Muon([nn.Parameter(torch.randn(2, 2, dtype=torch.complex64))])
    table = nn.Embedding(3, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="dense gradient, got a sparse one of shape"):
        Muon(table.parameters()).step()
    weight = nn.Parameter(torch.randn(2, 2))
    weight.grad, before = torch.randn(2, 2), weight.detach().clone()
    Muon([weight], lr=torch.tensor([0.1])).step()
    assert not weight.equal(before)
