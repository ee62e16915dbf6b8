"""LeRobot's default diffusion policy beside ours: milliseconds of a chunk and of a training step, in one process.

    python benchmarks/lerobot_speed.py [--steps 3] [--chunks 3]

The peer is lerobot 0.4.4's own `DiffusionPolicy` (249 million parameters) on a state of five values and actions of two,
with DDIM in 10 steps as its published Push-T policy uses, in its own training step: its loss, its optimiser and
schedule, its clipping. It is timed beside

- our training loop with the *same* network, the peer's own module, in the family `diffusion`: with the clipping, the
  average of the weights and the precision of our defaults;
- a chunk of our recipe `flow_policy` in its default size, on one thread: barely trained here, so no score is told.

lerobot is installed without its dependencies, which would replace torch:

    pip install --no-deps lerobot==0.4.4 diffusers einops draccus datasets dill multiprocess xxhash mergedeep \
        pyyaml-include typing_inspect mypy_extensions toml jsonlines termcolor deepdiff orderly-set imageio pyserial \
        cachebox aiohttp aiosignal frozenlist multidict yarl propcache aiohappyeyeballs av

torchvision, torchcodec and wandb, which a policy without pictures does not use, are stood in for by empty modules.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import statistics
import sys
import time
import types
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from everymode.families import Diffusion
from everymode.policies import Demonstrations, Policy
from everymode.policies.recipes import get as recipe
from everymode.policies.windows import action_windows, observation_windows, spaces_of
from everymode.training import TrainingSettings, train
from peers import write

BATCH, OBSERVED, PREDICTED, EXECUTED = 64, 2, 16, 8
STATE, ACTION = 5, 2


class _Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds modules that are imported and never used, and makes them empty; any name in them is a class."""

    names = ("torchvision", "torchcodec", "wandb")

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] not in self.names:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = types.ModuleType(spec.name)
        module.__dict__["__getattr__"] = _any_class
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def _any_class(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})


def peer_policy() -> Any:
    """Return lerobot's default diffusion policy, untrained, with DDIM in 10 steps."""
    sys.meta_path.insert(0, _Absent())
    from lerobot.configs.types import FeatureType, PolicyFeature  # pyright: ignore[reportMissingImports]
    from lerobot.policies.diffusion.configuration_diffusion import (  # pyright: ignore[reportMissingImports]
        DiffusionConfig,
    )
    from lerobot.policies.diffusion.modeling_diffusion import (  # pyright: ignore[reportMissingImports]
        DiffusionPolicy,
    )

    config = DiffusionConfig(
        # it asks for pictures or a state of the surroundings beside the robot's own: the agent, and the block
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (2,)),
            "observation.environment_state": PolicyFeature(FeatureType.ENV, (STATE - 2,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (ACTION,))},
        noise_scheduler_type="DDIM",
        num_inference_steps=10,
        device="cpu",
    )
    return DiffusionPolicy(config)


def peer_step(policy: Any) -> Callable[[], None]:
    """Return one training step as lerobot's loop makes it."""
    config = policy.config
    optimiser = config.get_optimizer_preset().build(policy.get_optim_params())
    schedule = config.get_scheduler_preset().build(optimiser, 100_000)
    clip = config.get_optimizer_preset().grad_clip_norm
    batch = {
        "observation.state": torch.randn(BATCH, OBSERVED, 2),
        "observation.environment_state": torch.randn(BATCH, OBSERVED, STATE - 2),
        "action": torch.randn(BATCH, PREDICTED, ACTION),
        "action_is_pad": torch.zeros(BATCH, PREDICTED, dtype=torch.bool),
    }

    def step() -> None:
        policy.train()
        loss, _ = policy.forward(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), clip)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()

    return step


def peer_chunk(policy: Any) -> Callable[[], None]:
    """Return one planning of lerobot's policy: the call of `select_action` that finds its queue empty."""
    observation = {"observation.state": torch.randn(1, 2), "observation.environment_state": torch.randn(1, STATE - 2)}

    def chunk() -> None:
        policy.eval()
        policy.reset()
        with torch.inference_mode():
            policy.select_action(dict(observation))

    return chunk


class SameNetwork(nn.Module):
    """The peer's network under our signature, `network(y_t, t, x_embedding)`; its times are steps of 100."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet, self.width = unet, 512

    def forward(self, y_t: Tensor, t: Tensor, x_embedding: Tensor) -> Tensor:
        return self.unet(y_t, 100 * (1 - t), global_cond=x_embedding)


def demonstrations() -> Demonstrations:
    """Return episodes of noise: what is timed does not depend on what is learned."""
    rng, steps = np.random.default_rng(0), 1000
    state, action = rng.normal(size=(steps, STATE)), rng.normal(size=(steps, ACTION))
    return Demonstrations({"state": state}, action, np.arange(100, steps + 1, 100))


def our_steps(unet: nn.Module, steps: int) -> tuple[list[float], str]:
    """Return the seconds of each step of our loop with the peer's network, and the precision that it chose."""
    x_space, y_space = spaces_of(demonstrations(), OBSERVED, PREDICTED)
    x, y = observation_windows(demonstrations(), x_space), action_windows(demonstrations(), y_space)
    family = Diffusion(target="noise", path="cosine").build(
        y_space, x_space, network=lambda shape, embedding: SameNetwork(unet), width=OBSERVED * STATE
    )
    family.encoder = Flat()
    settings = TrainingSettings(steps=steps + 1, batch_size=BATCH, learning_rate=1e-4, validate_every=1)
    seconds, before = [], time.perf_counter()
    precision = ""
    for progress in train(family, y, x, settings=settings):
        seconds.append(time.perf_counter() - before)
        precision = progress.precision
        before = time.perf_counter()
    return seconds[1:], precision  # the first one prepares


class Flat(nn.Module):
    """The observations as the peer's network takes them, side by side."""

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        return x["state"].flatten(1)


def seconds_of(work: Callable[[], None], times: int) -> list[float]:
    found = []
    for _ in range(times + 1):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return found[1:]


def our_chunk() -> tuple[Policy, Callable[[], None]]:
    """Return our recipe for Push-T, barely trained, and one planning of it."""
    policy = recipe("flow_policy", steps=2, batch_size=8, random_state=0).fit(demonstrations())
    seen = np.random.default_rng(1).normal(size=(1, OBSERVED, STATE))

    def chunk() -> None:
        policy.act_chunk(seen)

    return policy, chunk


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--chunks", type=int, default=3)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # the peer's
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    peer = peer_policy()
    parameters = sum(p.numel() for p in peer.parameters())
    chunk = statistics.median(seconds_of(peer_chunk(peer), asked.chunks))
    print(f"lerobot: {parameters / 1e6:.1f} M parameters, a chunk in {chunk:.2f} s", flush=True)
    step = statistics.median(seconds_of(peer_step(peer), asked.steps))
    print(f"lerobot: a training step in {step:.2f} s", flush=True)
    peer.zero_grad(set_to_none=True)
    mine, precision = our_steps(peer.diffusion.unet, asked.steps)
    ours = statistics.median(mine)
    print(f"everymode: a training step of the same network in {ours:.2f} s, {precision}", flush=True)
    policy, plan = our_chunk()
    torch.set_num_threads(1)
    quick = statistics.median(seconds_of(plan, 200))
    found = {
        "seed": 0,
        "batch": BATCH,
        "threads": threads,
        "peer": {
            "name": "lerobot 0.4.4, DiffusionPolicy, DDIM in 10 steps",
            "parameters": parameters,
            "chunk_ms": round(1000 * chunk, 1),
            "training_step_ms": round(1000 * step, 1),
        },
        "same_network": {
            "precision": precision,
            "training_step_ms": round(1000 * ours, 1),
            "times_as_fast": round(step / ours, 2),
        },
        "flow_policy": {
            "nfe": policy.nfe,
            "parameters": policy.n_parameters_,
            "threads": 1,
            "chunk_ms": round(1000 * quick, 3),
            "times_as_fast": round(chunk / quick, 1),
        },
    }
    write("lerobot_speed", found)


if __name__ == "__main__":
    main()
