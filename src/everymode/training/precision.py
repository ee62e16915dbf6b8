"""Mixed precision, chosen by measurement: bf16 where this machine multiplies matrices of this size faster in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import nn

from everymode.errors import check_choice

__all__ = ["NEEDED_SPEEDUP", "PRECISIONS", "bf16_speedup", "choose_precision", "has_bf16"]

PRECISIONS = ("auto", "float32", "bf16")
SMALLEST_WIDTH = 256  # below it the casts cost more than the arithmetic saves, on every machine that was measured
NEEDED_SPEEDUP = 1.2


def has_bf16(device: torch.device) -> bool:
    """Return whether the hardware multiplies in bf16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    if device.type == "cpu":
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_bf16_supported")
        return any(getattr(torch.cpu, probe)() for probe in probes if hasattr(torch.cpu, probe))
    return False


def recorded(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Return `work` as a CUDA graph, as steps are made on a GPU; it is done a few times before."""
    stream = torch.cuda.Stream(device)
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        work()
    return graph.replay


@lru_cache(maxsize=64)
def bf16_speedup(device: str, width: int, batch: int) -> float:
    """Return how many times faster two layers of `width` are under bf16, forward and backward (best of six)."""
    where = torch.device(device)
    # values do not matter: nothing here draws from a random generator
    layers = [nn.Linear(width, width, device="meta").to_empty(device=where) for _ in range(2)]
    model = nn.Sequential(layers[0], nn.SiLU(), layers[1])
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.01)
    data = torch.ones(batch, width, device=where, requires_grad=True)

    def seconds(enabled: bool) -> float:
        def once() -> None:
            with torch.autocast(where.type, torch.bfloat16, enabled=enabled):
                out = model(data)
            out.float().square().mean().backward()

        work = recorded(once, where) if where.type == "cuda" else once
        best = float("inf")
        for _ in range(6):
            start = time.perf_counter()
            work()
            if where.type == "cuda":
                torch.cuda.synchronize(where)
            best = min(best, time.perf_counter() - start)
        return best

    return seconds(False) / seconds(True)


def choose_precision(precision: str, device: torch.device, width: int, batch: int) -> str:
    """Return 'float32' or 'bf16'.

    'auto' measures, once a process and size, and takes bf16 if it is at least 1.2 times faster. Widths below 256 stay
    in float32 without a measurement, so that small runs are the same everywhere. The choice is written down with the
    run: what resumes it does not measure again.
    """
    check_choice("precision", precision, PRECISIONS)
    if precision != "auto":
        return precision
    if width < SMALLEST_WIDTH or not has_bf16(device):
        return "float32"
    return "bf16" if bf16_speedup(str(device), width, batch) >= NEEDED_SPEEDUP else "float32"
