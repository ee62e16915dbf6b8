"""Networks for sequences and observations: shapes, sizes as published, and what each of them can tell."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from everymode.errors import SettingError, UnsupportedError
from everymode.families import get_family
from everymode.networks import Sizes, UNet1d, default_for, names, sizes_for
from everymode.networks.observations import RecurrentEncoder, TokenEncoder
from everymode.networks.resnet import ResNet, SpatialSoftmax
from everymode.randomness import seeded
from everymode.spaces import DictSpace, ImageSpace, LabelSpace, PixelSpace, SequenceSpace, VectorSpace

ACTIONS = SequenceSpace((6, 2), (0.0, 0.0), (1.0, 1.0))
SEEN = DictSpace(
    {
        "state": SequenceSpace((3, 4), (0.0,) * 4, (1.0,) * 4),
        "image": PixelSpace(3, (3, 16, 16)),
        "task": LabelSpace(("lift", "push")),
    }
)


def seen(rows: int = 5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "state": torch.randn(rows, 3, 4, generator=generator),
        "image": torch.randint(0, 256, (rows, 3, 3, 16, 16), generator=generator, dtype=torch.uint8),
        "task": torch.arange(rows) % 2,
    }


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("copies", [None, 3])
@seeded(0)
def test_a_named_network_answers_in_the_shape_of_y_and_sees_every_part_of_x(name, copies):
    network, encoder = default_for(ACTIONS, SEEN, Sizes(16, 2, name), copies=copies)
    x, y_t, t = seen(), torch.randn(5, 6, 2), torch.full((5,), 0.3)
    answers = network(y_t, t, encoder(x))
    assert answers.shape == ((5, 6, 2) if copies is None else (5, 3, 6, 2))
    answers.sum().backward()
    blind = [k for k, p in [*network.named_parameters(), *encoder.named_parameters()] if p.grad is None]
    assert not blind
    for part in x:
        other = {**x, part: x[part].roll(1, 0)}
        assert not torch.allclose(encoder(other), encoder(x)), part
    once = network(y_t, torch.tensor(0.3).expand(5), encoder(x))  # one time for all, embedded once
    torch.testing.assert_close(once, answers, atol=1e-5, rtol=1e-4)


def counted(channels: tuple[int, int, int], given: int, step: int) -> int:
    """Return what the published network has parameters, by its own formulas, for actions of two numbers."""

    def block(into, out):
        convolutions = 5 * (into + out) * out + 2 * out + 2 * 2 * out  # weights, biases and group norms
        around = (into + 1) * out if into != out else 0
        return convolutions + (step + given + 1) * 2 * out + around

    a, b, c = channels
    total = step * 4 * step + 4 * step + 4 * step * step + step
    total += sum(block(into, out) + block(out, out) for into, out in ((2, a), (a, b), (b, c)))
    total += sum(3 * d * d + d for d in (a, b)) + 2 * block(c, c)
    total += sum(block(2 * wide, out) + block(out, out) + 4 * out * out + out for wide, out in ((c, b), (b, a)))
    return total + 5 * a * a + a + 2 * a + 2 * a + 2


@seeded(0)
def test_the_unet_is_the_published_one():
    network = UNet1d((16, 2), 10, channels=(16, 24, 32), kernel=5, groups=8, step_embedding=12)
    assert sum(p.numel() for p in network.parameters()) == counted((16, 24, 32), 10, 12)
    assert counted((512, 1024, 2048), 132, 128) == pytest.approx(2.5e8, rel=0.05)  # the 250 M of the paper's default


@pytest.mark.parametrize("horizon", [1, 3, 5, 8])
@seeded(0)
def test_a_unet_takes_any_horizon(horizon):
    network = UNet1d((horizon, 2), 4, channels=(8, 16, 32))
    assert network(torch.randn(2, horizon, 2), torch.rand(2), torch.randn(2, 4)).shape == (2, horizon, 2)


@seeded(0)
def test_an_even_kernel_is_refused():
    with pytest.raises(SettingError, match="kernel=4 is even"):
        UNet1d((8, 2), 4, kernel=4)


@seeded(0)
def test_there_is_a_token_for_each_step_of_each_part():
    encoder = TokenEncoder(SEEN, 16)
    x = seen()
    tokens = encoder(x)
    assert tokens.shape == (5, 3 + 3 + 1, 16)
    x["state"] = x["state"].clone()
    x["state"][:, 1] += 1
    changed = (encoder(x) - tokens).abs().amax(dim=(0, 2)) > 1e-6
    assert changed.tolist() == [False, True, False, False, False, False, False]


@seeded(0)
def test_an_lstm_heeds_the_order_of_steps():
    encoder, x = RecurrentEncoder(SEEN, 16), seen()
    assert not torch.allclose(encoder({**x, "state": x["state"].flip(1)}), encoder(x))


@seeded(0)
def test_a_spatial_softmax_tells_where_the_peak_is():
    h = torch.zeros(1, 2, 5, 9)
    h[0, 0, 1, 6] = 50.0  # row 1 of 0 .. 4 is v = -.5, column 6 of 0 .. 8 is u = .5
    h[0, 1, 4, 0] = 50.0
    torch.testing.assert_close(SpatialSoftmax()(h), torch.tensor([[0.5, -1.0, -0.5, 1.0]]), atol=1e-5, rtol=0)


@seeded(0)
def test_pictures_are_told_apart_without_batch_statistics():
    network = ResNet(3, 8, stages=(16, 32)).eval()
    assert not [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    pictures = torch.randint(0, 256, (4, 3, 24, 24), dtype=torch.uint8)
    together, alone = network(pictures), torch.cat([network(picture[None]) for picture in pictures])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("space", "name"),
    [
        (VectorSpace((2,), (0.0,) * 2, (1.0,) * 2), "unet"),
        (ImageSpace((1, 8, 8), (0.0,), (1.0,)), "action_transformer"),
    ],
)
@seeded(0)
def test_a_network_is_refused_for_what_it_cannot_answer(space, name):
    with pytest.raises(SettingError, match=f"network='{name}' is not for a"):
        sizes_for(space, None, None, name)


@seeded(0)
def test_a_family_that_makes_its_own_networks_says_so():
    with pytest.raises(UnsupportedError, match="makes its own networks"):
        get_family("autoregressive").build(ACTIONS, SEEN, network="unet")


@pytest.mark.parametrize("family", ["vae", "vq", "mdn", "gm_flow", "mean_flow", "shortcut", "consistency", "energy"])
@seeded(0)
def test_families_work_on_tokens_of_observations(family):
    built = get_family(family).build(ACTIONS, SEEN, width=16, depth=1, network="action_transformer")
    x, y = seen(), torch.randn(5, 6, 2)
    with torch.no_grad():
        built.prepare(y, x, seed=0)
    for part in built.parts():
        part.loss(y, x, generator=torch.Generator().manual_seed(0)).mean().backward()
    drawn = built.sample(x, 2, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (10, 6, 2)
    assert torch.isfinite(drawn).all()
