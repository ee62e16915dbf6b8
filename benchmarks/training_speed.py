"""Steps per second of our training loop against torchcfm's own two-dimensional example loop, in one process.

Same network, batch, data and number of steps. Two peers: `torchcfm` draws its batches from data in memory, as we do;
`torchcfm_as_published` also draws them anew in every step with torchcfm's own samplers, as its example does. Ours runs
with warm-up, cosine, clipping, an average of the weights and precision by measurement, twice: `everymode` as it does by
default in a run of less than half a minute (call by call on a CPU, as a CUDA graph on a GPU), and `everymode_compiled`
as it does by default in a longer run on a CPU. After the same number of steps, the held-out loss of all is the plain
squared error of the velocity on the same noise and times. The loops take turns, a hundredth of the steps each, and the
one that draws its data a fifth of that; compilation is timed beside them and is not in the rates.

Needs the extra `benchmarks`. Usage: python benchmarks/training_speed.py [--quick] [--width N] [--device cuda]; with a
width, its rows are measured and the others stay as they are in the results.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator

import torch

from everymode.families import FlowMatching
from everymode.randomness import seeded
from everymode.training import Progress, TrainingSettings, default_learning_rate, train
from peers import NOTHING, UNIT, PeerNetwork, earlier, interleave, medians, moons, ratio, timed, write

SIZES = ((64, 256), (256, 256), (512, 1024))
STEPS = {64: 6000, 256: 3000, 512: 1000}
STEPS_ON_GPU = dict.fromkeys(STEPS, 3000)
ROWS = 20_000
OURS = {"everymode": False, "everymode_compiled": True}


def peer_loop(width: int, batch: int, data: torch.Tensor, samplers: tuple | None) -> tuple[torch.nn.Module, Callable]:
    """Return (network, a function that makes n steps of torchcfm's example loop)."""
    from torchcfm.conditional_flow_matching import ConditionalFlowMatcher  # pyright: ignore[reportMissingImports]

    with seeded(0):
        network = PeerNetwork(width).mlp.to(data.device)
    optimizer = torch.optim.Adam(network.parameters())
    matcher = ConditionalFlowMatcher(sigma=0.0)

    def steps(n: int) -> None:
        for _ in range(n):
            optimizer.zero_grad()
            if samplers is None:
                x1 = data[torch.randint(0, len(data), (batch,), device=data.device)]
                x0 = torch.randn_like(x1)
            else:
                x0, x1 = (sampler(batch).to(data.device) for sampler in samplers)
            t, xt, ut = matcher.sample_location_and_conditional_flow(x0, x1)[:3]
            vt = network(torch.cat([xt, t[:, None]], dim=-1))
            loss = torch.mean((vt - ut) ** 2)
            loss.backward()
            optimizer.step()
        wait(data.device)

    return network, steps


def wait(device: torch.device) -> None:
    """Wait until what was asked of a device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def our_loop(
    width: int, batch: int, data: torch.Tensor, steps: int, compiled: bool
) -> tuple[FlowMatching, Iterator[Progress]]:
    """Return (family, our training loop), with the peer's network in it."""
    family = FlowMatching().build(UNIT, NOTHING, network=lambda shape, embedding: PeerNetwork(width), width=width)
    family.encoder = torch.nn.Identity()  # the peer's network has no condition to encode
    rate = default_learning_rate(width)
    compile = compiled or (False if data.device.type == "cpu" else "auto")
    settings = TrainingSettings(
        steps=steps, batch_size=batch, validate_every=steps, learning_rate=rate, compile=compile
    )
    return family, train(family, data, torch.zeros(len(data), 0), settings=settings, device=data.device)


def ceiling(width: int, batch: int, bf16: bool) -> float:
    """Return how often a second the network alone goes forward and backward: no data, no optimiser, no average."""
    network = PeerNetwork(width)
    y, t = moons(batch, seed=0), torch.rand(batch, generator=torch.Generator().manual_seed(0))

    def once() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = network(y, t, y)
        out.float().square().mean().backward()

    once()
    repeats = max(5, 20_000 // width)
    return max(timed(lambda: [once() for _ in range(repeats // 5)], repeats // 5) for _ in range(5))


def held_out_loss(velocity: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], device: torch.device) -> float:
    """Return the squared error of a velocity on fresh data, with the same noise and times for all."""
    y = moons(50_000, seed=1)
    generator = torch.Generator().manual_seed(2)
    noise, t = torch.randn(y.shape, generator=generator), torch.rand(len(y), generator=generator)
    y, noise, t = y.to(device), noise.to(device), t.to(device)
    with torch.inference_mode():
        return float((velocity(torch.lerp(noise, y, t[:, None]), t) - (y - noise)).square().mean())


def published_samplers() -> tuple | None:
    """Return the samplers of torchcfm's example, where what they need is installed."""
    try:
        from torchcfm.utils import sample_8gaussians, sample_moons  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    return sample_8gaussians, sample_moons


def measure(width: int, batch: int, threads: int, device: torch.device, quick: bool) -> dict:
    """Return the rates, ratios and losses of one size."""
    torch.set_num_threads(threads)
    data = moons(ROWS, seed=0).to(device)
    steps = (STEPS if device.type == "cpu" else STEPS_ON_GPU)[width] // (20 if quick else 1)
    chunk = max(10, steps // 100)  # our loop reports this often
    network, peer_steps = peer_loop(width, batch, data, None)
    ours = {name: our_loop(width, batch, data, steps, compiled) for name, compiled in OURS.items()}
    last: dict[str, Progress] = {}

    def ours_on(name: str) -> float:
        return timed(lambda: last.update({name: next(ours[name][1])}), chunk)

    begun = {name: chunk / ours_on(name) for name in ours}  # seconds, compilation included
    runs: dict[str, Callable[[], float]] = {name: lambda name=name: ours_on(name) for name in ours}
    runs["torchcfm"] = lambda: timed(lambda: peer_steps(chunk), chunk)
    if samplers := published_samplers():
        _, published_steps = peer_loop(width, batch, data, samplers)
        few = max(2, chunk // 5)
        runs["torchcfm_as_published"] = lambda: timed(lambda: published_steps(few), few)
    rates = interleave(runs, steps // chunk - 1)
    peer_steps(chunk)  # as many as ours
    for name, (_, loop) in ours.items():
        last[name] = [last[name], *loop][-1]
    for values in rates.values():
        del values[:2]  # warming up
    losses = {
        name: held_out_loss(lambda y, t, f=family: f.velocity(y, t, y.new_zeros(len(y), 0)), device)
        for name, (family, _) in ours.items()
    }
    losses["torchcfm"] = held_out_loss(lambda y, t: network(torch.cat([y, t[:, None]], dim=-1)), device)
    median = {name: round(rate, 1) for name, rate in medians(rates).items()}
    peers = [name for name in rates if name not in ours]
    found = {
        "width": width,
        "batch": batch,
        "threads": threads,
        "steps": steps,
        "precision": last["everymode"].precision,
        "steps_per_second": median,
        "ratio_to": {name: {peer: ratio(rates, name, peer) for peer in peers} for name in ours},
        "seconds_to_compile": round(begun["everymode_compiled"] - chunk / median["everymode_compiled"], 1),
        "held_out_loss": {name: round(loss, 5) for name, loss in losses.items()},
    }
    if device.type == "cpu":
        found["ceiling"] = round(ceiling(width, batch, found["precision"] == "bf16") / median["torchcfm"], 2)
    return found


def at_best_threads(rows: list[dict]) -> list[dict]:
    """Return each size with every loop at its better number of threads."""
    found = []
    for width, batch in SIZES:
        mine = [row["steps_per_second"] for row in rows if row["width"] == width]
        rates = {name: max(rates[name] for rates in mine) for name in (mine[0] if mine else ())}
        peers = [name for name in rates if name not in OURS]
        ratios = {name: {peer: round(rates[name] / rates[peer], 2) for peer in peers} for name in OURS if rates}
        found.append({"width": width, "batch": batch, "steps_per_second": rates, "ratio_to": ratios})
    return found


def main() -> None:
    warnings.simplefilter("ignore")  # the peer's
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--width", type=int, choices=list(STEPS))
    parser.add_argument("--device", default="cpu", type=torch.device)
    asked = parser.parse_args()
    on_cpu = asked.device.type == "cpu"
    name = "training_speed" + ("" if on_cpu else "_gpu") + ("_quick" if asked.quick else "")
    sizes = [size for size in SIZES if asked.width in (None, size[0])]
    rows = [
        measure(*size, threads, asked.device, asked.quick) for size in sizes for threads in ((1, 2) if on_cpu else (1,))
    ]
    if asked.width is not None:
        before = earlier(name).get("rows", [])
        rows = sorted(rows + [row for row in before if row["width"] != asked.width], key=lambda row: row["width"])
    where = {} if on_cpu else {"gpu": torch.cuda.get_device_name(asked.device)}
    write(name, {"seed": 0, **where, "each_at_its_best_threads": at_best_threads(rows), "rows": rows})


if __name__ == "__main__":
    main()
