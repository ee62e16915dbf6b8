"""Robot policies: demonstrations in, a policy that commits to one way out.

A policy sees the last observations and predicts the next actions, `observation_horizon` and `prediction_horizon` of
them, executes the first `execution_horizon` and looks again. Any family on sequences serves.

References:
    Diffusion policy: visuomotor policy learning via action diffusion (Chi et al., 2023),
        https://arxiv.org/abs/2303.04137
"""

from typing import TYPE_CHECKING

from everymode.lazy import attach

if TYPE_CHECKING:
    from everymode.policies import recipes
    from everymode.policies.client import LateWarning, RemotePolicy, ServerError
    from everymode.policies.continuity import Continuity, Ensemble, RealTime, Select
    from everymode.policies.demonstrations import Demonstrations
    from everymode.policies.execution import Execution
    from everymode.policies.policy import Policy, load_policy
    from everymode.policies.readers import read_demonstrations
    from everymode.policies.server import PolicyServer

__all__ = [
    "Continuity",
    "Demonstrations",
    "Ensemble",
    "Execution",
    "LateWarning",
    "Policy",
    "PolicyServer",
    "RealTime",
    "RemotePolicy",
    "Select",
    "ServerError",
    "load_policy",
    "read_demonstrations",
    "recipes",
]

_HOMES = {
    "client": ("LateWarning", "RemotePolicy", "ServerError"),
    "continuity": ("Continuity", "Ensemble", "RealTime", "Select"),
    "demonstrations": ("Demonstrations",),
    "execution": ("Execution",),
    "policy": ("Policy", "load_policy"),
    "readers": ("read_demonstrations",),
    "server": ("PolicyServer",),
}

__getattr__, __dir__ = attach(
    __name__,
    {
        **{name: f"everymode.policies.{home}" for home, names in _HOMES.items() for name in names},
        "recipes": "",
    },
)
