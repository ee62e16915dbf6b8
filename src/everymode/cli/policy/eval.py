"""`everymode policy eval`: what a policy is worth, on fresh starts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from everymode.cli.options import Device, Json, Quiet, Seed, parse_settings
from everymode.cli.policy.train import EnvSettings
from everymode.cli.voice import Voice

_FILMED = 4


def command(
    run: Annotated[Path, typer.Argument(help="A run folder, as `everymode policy train` made it.", show_default=False)],
    episodes: Annotated[int, typer.Option(help="Fresh starts, the same for every policy.")] = 500,
    seed_block: Annotated[str, typer.Option(help="report, or choose for what something is chosen by.")] = "report",
    env: Annotated[str | None, typer.Option(help="Another environment than the run's.")] = None,
    env_set: EnvSettings = None,
    robots: Annotated[int, typer.Option(help="Environments side by side, their chunks planned in one call.")] = 32,
    jobs: Annotated[int, typer.Option(help="Processes at once.")] = 1,
    video: Annotated[bool, typer.Option("--video", help="Also film the first four episodes.")] = False,
    video_format: Annotated[str, typer.Option(help="gif or mp4.")] = "gif",
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Judge a policy: score, success, behaviour, smoothness and the milliseconds of a chunk, with intervals.

    Writes evaluation.json, the episodes and a picture of all paths from one start into a folder `evaluation` of the
    run. Exits with 1 if an environment crashed.
    """
    import numpy as np

    from everymode import plots
    from everymode.cli.fitting import threads
    from everymode.cli.policy._running import environment_of, read_policy_run
    from everymode.errors import check_choice
    from everymode.policies import load_policy
    from everymode.policies.evaluation import evaluate
    from everymode.policies.rollouts import block, roll_out
    from everymode.policies.video import SUFFIXES, save_video
    from everymode.policies.ways import Ways
    from everymode.runs import fresh_folder

    voice = Voice(json=json, quiet=quiet)
    check_choice("video_format", video_format, [suffix[1:] for suffix in SUFFIXES])
    settings = read_policy_run(run)
    environment = environment_of(settings, env)
    given = parse_settings(env_set, "--env-set") if env_set else settings["environment_settings"]
    policy = load_policy(run, device=device)
    with threads(64), voice.count(environment) as move:
        found = evaluate(
            policy,
            environment,
            episodes,
            seed_block,
            robots=robots,
            jobs=jobs,
            settings=given,
            random_state=seed,
            progress=move,
        )
        folder = fresh_folder(run / "evaluation")
        found.save(folder)
        start = Ways.of(environment, settings=given)
        if start.way_names:
            drawn = start.beside({settings["recipe"]: start.roll(policy, robots=robots, random_state=seed)})
            plots.save(plots.draw("ways", drawn), folder / "figures", "ways")
        if video:
            filmed = roll_out(
                policy,
                environment,
                block(seed_block, min(_FILMED, episodes)),
                settings=given,
                random_state=seed,
                frames=True,
            )
            frames = np.concatenate([episode.frames for episode in filmed.whole if episode.frames is not None])
            voice.show(f"video: {save_video(frames, folder / f'episodes.{video_format}', filmed.rate)}")
    voice.table(found.title, found.shown())
    voice.show(f"evaluation: {folder}")
    voice.result({**found.to_dict(), "folder": str(folder)})
    for episode in found.rollouts.failures:
        voice.say(f"crashed: seed {episode.seed}: {episode.error}")
    if found.rollouts.failures:
        raise typer.Exit(1)
