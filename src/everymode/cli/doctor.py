"""`everymode doctor`: what is here, what was chosen, what is missing and how to get it."""

from __future__ import annotations

from everymode.cli.options import Device, Json, Quiet, Seed
from everymode.cli.voice import Voice

_REQUIRED = (
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "pyarrow",
    "safetensors",
    "accelerate",
    "typer",
    "rich",
    "matplotlib",
)
_WHY = "steps of long runs are compiled, and faster"
_OPTIONAL = {"polars": "pip install polars (polars frames as X and Y)"}


def command(seed: Seed = 0, device: Device = "auto", json: Json = False, quiet: Quiet = False) -> None:
    """Show versions, device, threads, whether bf16 is faster here, what compiles the steps of long runs, and what is
    missing with the way to get it.

    Nothing here is drawn at random; `--seed` is taken so that a script may give the same options to every verb.
    """
    import os
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from everymode.cli.fitting import threads
    from everymode.training import bf16_speedup, find_compiler, resolve_device
    from everymode.training.precision import NEEDED_SPEEDUP, has_bf16
    from everymode.version import __version__

    voice = Voice(json=json, quiet=quiet)

    def found(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    where = resolve_device(device)
    with threads(64) as few:
        pass
    packages = {name: found(name) for name in _REQUIRED}
    missing = {name: f"pip install {name}" for name, seen in packages.items() if seen is None}
    missing |= {name: mend for name, mend in _OPTIONAL.items() if found(name) is None}
    compiler = find_compiler(where)
    if compiler is None:
        missing["compiler"] = f"pip install triton ({_WHY})" if where.type == "cuda" else f"apt install g++ ({_WHY})"
    speedups = {}
    if has_bf16(where):
        speedups = {str(w): round(bf16_speedup(str(where), w, 256), 2) for w in (256, 512)}
    report = {
        "everymode": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": packages,
        "device": str(where),
        "device_name": torch.cuda.get_device_name(where) if where.type == "cuda" else platform.processor() or "CPU",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "threads_for_small_networks": few,
        "bf16_in_hardware": has_bf16(where),
        "bf16_speedup_by_width": speedups,
        "bf16_used_by_default": {w: s >= NEEDED_SPEEDUP for w, s in speedups.items()},
        "compiler": compiler,
        "missing": missing,
        "healthy": not any(name in _REQUIRED for name in missing),
    }
    rows = [
        {"what": "everymode", "found": f"{__version__} on Python {report['python']}, {report['system']}"},
        {"what": "packages", "found": ", ".join(f"{k} {v}" for k, v in packages.items() if v)},
        {"what": "device", "found": f"{report['device']} ({report['device_name']})"},
        {"what": "threads", "found": f"{report['threads']} of {report['cores']} cores; {few} for widths below 256"},
        {"what": "bf16", "found": _bf16(report)},
        {"what": "compiler", "found": f"{compiler}, for steps of long runs" if compiler else "none"},
        {"what": "missing", "found": "; ".join(f"{k}: {v}" for k, v in missing.items()) or "nothing"},
    ]
    for row in rows:
        voice.show(f"{row['what']:<10} {row['found']}")
    voice.result(report)


def _bf16(report: dict) -> str:
    if not report["bf16_in_hardware"]:
        return "not in this hardware: float32 everywhere"
    parts = (
        f"width {w}: {s} times the speed of float32{', used' if report['bf16_used_by_default'][w] else ', not used'}"
        for w, s in report["bf16_speedup_by_width"].items()
    )
    return "; ".join(parts)
