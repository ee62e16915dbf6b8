"""Chains of layers, trained as one node: the same answers and gradients as autograd's, and plain where they must be."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from everymode.randomness import new_generator, seeded
from everymode.training.chains import Chains

ACTIVATIONS = [nn.SELU, nn.ReLU, nn.Tanh, nn.Sigmoid, nn.SiLU, nn.GELU, lambda: nn.GELU("tanh")]


def network(activation=nn.SiLU):
    """Begins and ends with an activation, has two layers in a row, one without a bias and a narrow input."""
    with seeded(0):
        net = nn.Sequential(activation(), nn.Linear(2, 32), activation(), nn.Linear(32, 16, bias=False))
        return net.extend([nn.Linear(16, 4), activation()])


def placed(net):
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    return net


def draws(*shape):
    return torch.randn(shape, generator=new_generator(1))


def found(net, x, *, engaged, calls=1):
    """Return the answers, and the gradients with respect to the parameters and x."""
    chains, x = Chains(placed(net)), x.clone().requires_grad_()
    if engaged:
        chains.engage()
        assert "forward" in net.__dict__
    out = net(x)
    total = sum((net(x) for _ in range(calls - 1)), out)
    chains.backward(total.float().square().flatten(1).sum(dim=1))
    chains.release()
    assert "forward" not in net.__dict__
    return [out.detach(), x.grad, *(p.grad for p in net.parameters())]


def same(ours, theirs, tolerance):
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert (a - b).abs().max() <= tolerance * b.abs().max()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_answers_and_gradients_are_those_of_autograd(activation, dtype, tolerance):
    net = network(activation).to(dtype)
    for x in (draws(7, 2).to(dtype), draws(3, 5, 2).to(dtype)):
        same(found(net, x, engaged=True), found(net, x, engaged=False), tolerance)
    same(found(net, x, engaged=True, calls=3), found(net, x, engaged=False, calls=3), 2 * tolerance)


def test_a_frozen_layer_gets_no_gradient_and_the_others_do():
    net = network()
    net[1].requires_grad_(False)
    theirs = found(net, draws(7, 2), engaged=False)
    same(found(net, draws(7, 2), engaged=True), theirs, 1e-5)
    assert not net[1].weight.grad.any()


def test_a_gradient_within_the_loss_has_no_effect_on_the_parameters_and_can_be_differentiated():
    def penalty(net, chains, x):
        x = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
        assert not any(p.grad.any() for p in net.parameters())
        chains.backward(slope.square().sum(dim=1) + net(x).sum(dim=1))
        return [slope.detach(), *(p.grad for p in net.parameters())]

    net, x = network(), draws(7, 2)
    theirs = penalty(placed(net), Chains(net), x)
    chains = Chains(placed(net))
    chains.engage()
    same(penalty(net, chains, x), theirs, 1e-5)


def test_transforms_and_passes_without_gradients_see_the_plain_modules():
    net, x = network(), draws(7, 2)
    plain = net(x)
    _, slope = torch.func.jvp(net, (x,), (torch.ones_like(x),))
    rows = torch.func.vmap(net)(x)
    chains = Chains(placed(net))
    chains.engage()
    assert torch.equal(torch.func.jvp(net, (x,), (torch.ones_like(x),))[1], slope)
    assert torch.equal(torch.func.vmap(net)(x), rows)
    with torch.no_grad():
        assert torch.equal(net(x), plain)
    with torch.autograd.forward_ad.dual_level():
        dual = net(torch.autograd.forward_ad.make_dual(x, torch.ones_like(x)))
        torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(dual).tangent, slope)


def test_only_plain_chains_are_engaged():
    class Own(nn.Linear):
        pass

    def hooked():
        net = network()
        net[1].register_forward_hook(lambda *_: None)
        return net

    def patched():
        net = network()
        net[1].forward = net[1].forward
        return net

    with seeded(0):
        lone = [nn.Linear(2, 2) for _ in range(3)]
        own = Own(2, 2)
    others = [
        hooked(),
        patched(),
        nn.Sequential(own, nn.SiLU()),
        nn.Sequential(lone[0], nn.LayerNorm(2)),
        nn.Sequential(lone[1], lone[2].double()),
        nn.Sequential(nn.SiLU()),
        nn.Sequential(),
    ]
    whole = nn.ModuleList([network(), *others])
    chains = Chains(placed(whole))
    chains.engage()
    assert [("forward" in net.__dict__) for net in whole] == [True] + [False] * len(others)
    unplaced = network()
    Chains(unplaced).engage()
    assert "forward" not in unplaced.__dict__


def test_a_copy_of_an_engaged_chain_computes_with_its_own_parameters():
    net, x = network(), draws(7, 2)
    chains = Chains(placed(net))
    chains.engage()
    twin = copy.deepcopy(net)
    with torch.no_grad():
        twin[-2].bias.add_(1.0)
    assert not torch.equal(twin(x), net(x))
    chains.release()
    with torch.no_grad():
        net[-2].bias.add_(1.0)
    torch.testing.assert_close(twin(x), net(x))
