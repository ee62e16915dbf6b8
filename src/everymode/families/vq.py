"""Vector quantisation: y told by a few codes out of a code book, and a model of p(codes | x).

A tokeniser tells y by codes c_1 .. c_L, each one of K, and answers codes and x with y(c, x). A causal transformer tells
p(c_1 | x) p(c_2 | c_1, x) .. by softmax. So p(y | x) = sum_c p(c | x) p(y | c, x): as many modes as there are cells of
the code book, and nothing is averaged but what lies within one cell.

codebook='learned', in two stages. First a VQ-VAE with a residual code book: z = encoder(y, x), and each level of codes
takes the vector e_c nearest to what the levels before it left of z;

    loss = |y - y(c, x)|^2 + sum_levels |sg(left) - e_c|^2 + commitment |left - sg(e_c)|^2,

where sg stops the gradient, and that of the first term passes from the decoder to the encoder as if z had not been
changed. Then the transformer learns the codes of the frozen tokeniser. The encoder starts as the principal components
of y, the decoder as their inverse, the code vectors at k-means centres: nearly all codes are in use from the first
step on, and no running average and no restart of dead ones is needed. As the decoder sees x, its answer to a code
moves with x, which in VQ-BeT is the work of an offset.

codebook='kmeans', in one stage: Behavior Transformer's action head. The K codes are the k-means centres of y itself; a
class is told given x, and an offset from its centre given class and x, by squared error. `focal` = 2 and `noise` =
False are the paper's. What it loses: the cells are those of all y, whatever x is, and there is one offset a cell, so
that two answers to one x within a cell are averaged; and as there is one level, precision takes many classes, each with
few rows.

`noise` adds to an answer normal noise of the standard deviation of the errors, told given codes and x, so that draws
spread as y does; without it, all draws of the same codes are one answer. Independent noise makes motions jerk and
images grainy: by default only vectors have it.

References:
    Neural discrete representation learning (van den Oord, Vinyals and Kavukcuoglu, 2017),
        https://arxiv.org/abs/1711.00937
    Autoregressive image generation using residual quantization (Lee et al., 2022), https://arxiv.org/abs/2203.01941
    Behavior transformers: cloning k modes with one stone (Shafiullah et al., 2022), https://arxiv.org/abs/2206.11251
    Behavior generation with latent actions (Lee et al., 2024), https://arxiv.org/abs/2403.03181: VQ-BeT
    Focal loss for dense object detection (Lin et al., 2017), https://arxiv.org/abs/1708.02002

Fails: where answers are exact and the codes few, since noise about a code is round and a cell is not. With steps or
rows too few for two stages. The focal loss brings probabilities nearer to each other than they are.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from everymode.errors import SettingError, check_bool, check_choice, check_number
from everymode.families.base import Abilities, Family, Part, mean_over_event
from everymode.families.codebook import CodeBook, straight_through
from everymode.networks import Sizes, causal_for, coder_for, decoder_for, embedder_for, pooled
from everymode.networks.mlp import small_init
from everymode.randomness import Source, categorical, normal
from everymode.spaces import ArraySpace, Condition, Space

__all__ = ["VQ"]

CODEBOOKS = ("learned", "kmeans")
_LEVELS = {"vector": 2, "sequence": 4, "image": 8}
_LATENT = 32  # numbers that a code vector has at most
_GATE = 0.1  # how far the encoder and the decoder start from the principal components
_LEAST_SCALE = 1e-3  # of the noise, in standard deviations of y
_PRIOR_RATE = 0.5  # transformers bear lower learning rates than multilayer perceptrons


class Cells(nn.Module):
    """Tells y by the nearest of k-means centres, and answers a centre with an offset that follows from x.

    Args:
        y_space, x_space, sizes: the spaces, and the sizes of the networks.
        levels, codes: size of the code book.
        noise: whether the spread of the errors is told.
    """

    def __init__(
        self, y_space: ArraySpace, x_space: Space, sizes: Sizes, *, levels: int, codes: int, noise: bool
    ) -> None:
        super().__init__()
        self.event, self.latent = y_space.shape, self.latent_size(y_space)
        self.encoder = embedder_for(y_space, x_space, sizes)
        self.book = CodeBook(levels, codes, self.latent, learned=self.learned)
        self.decoder = decoder_for(y_space, self.latent, sizes)
        self.spread: nn.Module | None = None
        if noise:
            leave = small_init(nn.Linear(sizes.width, y_space.size))
            self.spread = nn.Sequential(nn.Linear(self.latent + sizes.width, sizes.width), nn.SiLU(), leave)

    learned: ClassVar[bool] = False

    @staticmethod
    def latent_size(y_space: ArraySpace) -> int:
        """Return the size of a code vector."""
        return y_space.size

    def start(self, y: Tensor, *, seed: int) -> None:
        """Begin from the data, y (rows, *event)."""
        self.book.start(y.flatten(1), seed=seed)

    def latents(self, y: Tensor, embedding: Tensor) -> Tensor:
        """Return what is quantised, (batch, latent), for y (batch, *event)."""
        return y.flatten(1)

    def codes(self, y: Tensor, x: Condition) -> Tensor:
        """Return the codes (batch, levels) of y (batch, *event)."""
        return self.book.encode(self.latents(y, self.encoder(x)))

    def answer(self, quantised: Tensor, embedding: Tensor) -> Tensor:
        """Return y (batch, *event) for code vectors (batch, latent)."""
        return quantised.unflatten(1, self.event) + self.decoder(quantised, embedding)

    def scale(self, quantised: Tensor, embedding: Tensor) -> Tensor:
        """Return the standard deviation of y about its answer, (batch, *event); only with noise."""
        if self.spread is None:
            raise SettingError("noise=False: this model tells no spread about its answers.")
        log_scale = self.spread(torch.cat([quantised, pooled(embedding)], dim=1)).float()
        return log_scale.unflatten(1, self.event).exp() + _LEAST_SCALE

    def draw(self, codes: Tensor, embedding: Tensor, generator: Source) -> Tensor:
        """Return y (batch, *event) for codes (batch, levels)."""
        quantised = self.book.decode(codes)
        answer = self.answer(quantised, embedding)
        if self.spread is None:
            return answer
        return answer + self.scale(quantised, embedding) * normal(tuple(answer.shape), generator, like=answer)

    def loss(self, y: Tensor, x: Condition) -> Tensor:
        """Return the squared error of the answers (batch,), a mean over the event, with what else is trained."""
        embedding = self.encoder(x)
        return self._loss(y, embedding, self.book.decode(self.book.encode(self.latents(y, embedding))))

    def _loss(self, y: Tensor, embedding: Tensor, quantised: Tensor) -> Tensor:
        error = self.answer(quantised, embedding) - y
        loss = mean_over_event(error.square())
        if self.spread is not None:  # the answer is the mean's and does not follow the spread
            scale = self.scale(quantised.detach(), embedding.detach())
            loss = loss + mean_over_event(scale.log() + 0.5 * (error.detach() / scale).square())
        return loss


class Tokeniser(Cells):
    """A VQ-VAE with a residual code book, whose encoder and decoder see x.

    Args:
        commitment: weight of the pull of z to its code vector.
    """

    learned: ClassVar[bool] = True

    def __init__(
        self, y_space: ArraySpace, x_space: Space, sizes: Sizes, *, commitment: float, **settings: Any
    ) -> None:
        super().__init__(y_space, x_space, sizes, **settings)
        self.commitment = commitment
        self.coder = coder_for(y_space, self.latent, sizes)
        self.enter, self.leave = nn.Linear(y_space.size, self.latent), nn.Linear(self.latent, y_space.size)
        self.gates = nn.Parameter(torch.full((2,), _GATE))

    @staticmethod
    def latent_size(y_space: ArraySpace) -> int:
        """Return the size of a code vector."""
        return min(_LATENT, y_space.size)

    def start(self, y: Tensor, *, seed: int) -> None:
        """Begin from the data, y (rows, *event): principal components, and k-means of them."""
        flat = y.flatten(1).double()
        mean = flat.mean(0)
        _, axes = torch.linalg.eigh((flat - mean).T @ (flat - mean))  # of rising variance
        axes = axes.flip(1)[:, : self.latent]
        self.enter.weight.copy_(axes.T)
        self.enter.bias.copy_(-mean @ axes)
        self.leave.weight.copy_(axes)
        self.leave.bias.copy_(mean)
        self.book.start(self.enter(y.flatten(1)), seed=seed)

    def latents(self, y: Tensor, embedding: Tensor) -> Tensor:
        """Return what is quantised, (batch, latent), for y (batch, *event)."""
        return (self.enter(y.flatten(1)) + self.gates[0] * self.coder(y, embedding)).float()

    def answer(self, quantised: Tensor, embedding: Tensor) -> Tensor:
        """Return y (batch, *event) for code vectors (batch, latent)."""
        return self.leave(quantised).unflatten(1, self.event) + self.gates[1] * self.decoder(quantised, embedding)

    def loss(self, y: Tensor, x: Condition) -> Tensor:
        """Return the squared error of the answers (batch,), a mean over the event, with what else is trained."""
        embedding = self.encoder(x)
        z = self.latents(y, embedding)
        codes = self.book.encode(z)
        loss = self._loss(y, embedding, straight_through(z, self.book.decode(codes)))
        return loss + self.book.loss(z, codes, self.commitment)


class Prior(nn.Module):
    """p(codes | x), one level after another.

    Args:
        y_space, x_space, sizes: the spaces, and the sizes of the networks.
        levels, codes: size of the code book.
    """

    def __init__(self, y_space: ArraySpace, x_space: Space, sizes: Sizes, *, levels: int, codes: int) -> None:
        super().__init__()
        self.levels, self.codes = levels, codes
        self.encoder = embedder_for(y_space, x_space, sizes)
        self.network = causal_for(levels, sizes)
        followed = levels - 1  # nothing follows the last
        self.words = nn.Embedding(followed * codes, sizes.width) if followed else None
        self.leave = small_init(nn.Linear(sizes.width, codes))
        self.offset = nn.Parameter(torch.zeros(levels, codes))

    def _known(self, codes: Tensor, first: int) -> Tensor | None:
        """Return embeddings (batch, k, width) of codes (batch, k) of the levels from `first` on; None for no codes."""
        if self.words is None or not codes.shape[1]:
            return None
        return self.words(codes + self.codes * torch.arange(first, first + codes.shape[1], device=codes.device))

    def log_prob(self, codes: Tensor, x: Condition) -> Tensor:
        """Return log p (batch, levels) of each of codes (batch, levels) given x and those before it."""
        hidden = self.network(self._known(codes[:, :-1], 0), pooled(self.encoder(x)))
        logits = (self.leave(hidden) + self.offset).float()
        return logits.log_softmax(-1).gather(-1, codes[..., None])[..., 0]

    def draw(self, embedding: Tensor, generator: Source) -> Tensor:
        """Return codes (batch, levels) for an embedding of x."""
        memory, known, codes = self.network.memory(), None, []
        for level in range(self.levels):
            logits = self.leave(self.network(known, embedding, memory)[:, 0]) + self.offset[level]
            codes.append(categorical(logits.float(), generator))
            known = self._known(codes[-1][:, None], level) if level + 1 < self.levels else None
        return torch.stack(codes, dim=1)


class VQ(Family):
    """Codes of a code book, drawn one after another, and the answers that they stand for.

    Args:
        codebook: 'learned' (VQ-VAE and prior) or 'kmeans' (Behavior Transformer's head).
        codes: code vectors a level.
        levels: levels of a learned code book; 2 for vectors, 4 for sequences and 8 for images if None.
        commitment: weight of the pull of an encoding to its code vector, in a learned code book.
        focal: exponent of the focal loss of the codes; 0 is cross-entropy, which keeps their probabilities.
        noise: whether draws spread about their answer as the data do; for vectors alone if None.
    """

    name: ClassVar[str] = "vq"
    abilities: ClassVar[Abilities] = Abilities(own_network=False)

    def __init__(
        self,
        *,
        codebook: str = "learned",
        codes: int = 32,
        levels: int | None = None,
        commitment: float = 0.25,
        focal: float = 0.0,
        noise: bool | None = None,
    ) -> None:
        super().__init__()
        self.codebook = check_choice("codebook", codebook, CODEBOOKS)
        self.codes = check_number("codes", codes, 2, 65536, integer=True)
        self.levels = check_number("levels", levels, 1, 64, integer=True, optional=True)
        self.commitment = check_number("commitment", commitment, 0.0, 100.0)
        self.focal = check_number("focal", focal, 0.0, 10.0)
        self.noise = None if noise is None else check_bool("noise", noise)

    def assemble(self, y_space: ArraySpace, x_space: Space, sizes: Sizes) -> None:
        """Make the tokeniser and the prior."""
        size = {"levels": self._levels(y_space.kind), "codes": self.codes}
        noise = y_space.kind == "vector" if self.noise is None else self.noise
        if self.codebook == "learned":
            self.tokeniser: Cells = Tokeniser(y_space, x_space, sizes, noise=noise, commitment=self.commitment, **size)
        else:
            self.tokeniser = Cells(y_space, x_space, sizes, noise=noise, **size)
        self.prior = Prior(y_space, x_space, sizes, **size)

    def prepare(self, y: Tensor, x: Condition, *, seed: int) -> None:
        """Put the code vectors where the data are."""
        self.tokeniser.start(y, seed=seed)

    def parts(self) -> list[Part]:
        """Return the tokeniser and the prior: in turn where the code book is learned, else side by side."""
        stage = 1 if self.codebook == "learned" else 0
        return [
            Part("tokeniser", self.tokeniser, self.answer_loss),
            Part("prior", self.prior, self.loss, stage=stage, rate=_PRIOR_RATE),
        ]

    @property
    def nfe(self) -> int:
        """Network evaluations for one draw: one a level, and the decoder."""
        return 1 + self._levels("vector" if self.y_space is None else self.y_space.kind)

    def _levels(self, kind: str) -> int:
        if self.codebook == "kmeans":
            return 1
        return _LEVELS[kind] if self.levels is None else self.levels

    def answer_loss(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return the tokeniser's loss of each row, (batch,)."""
        return self.tokeniser.loss(y, x)

    def loss(self, y: Tensor, x: Condition, *, generator: Source = None) -> Tensor:
        """Return the cross-entropy (or focal loss) of the codes of each row, (batch,), in nats a code."""
        with torch.no_grad():
            codes = self.tokeniser.codes(y, x)
        log_prob = self.prior.log_prob(codes, x)
        if self.focal:
            log_prob = log_prob * (-torch.expm1(log_prob)).clamp_min(1e-9).pow(self.focal)
        return -log_prob.mean(1)

    def encode(self, x: Condition) -> dict[str, Tensor]:
        """Return the embeddings of x for the tokeniser and for the prior."""
        return {"tokeniser": self.tokeniser.encoder(x), "prior": pooled(self.prior.encoder(x))}

    def draw(self, embedding: Any, *, generator: Source = None) -> Tensor:
        """Return one draw a row, (batch, *event): its codes, then the answer to them."""
        codes = self.prior.draw(embedding["prior"], generator)
        return self.tokeniser.draw(codes, embedding["tokeniser"], generator)
