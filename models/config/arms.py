"""The arms of a comparison, one row each; all that depends on an arm follows from its row.

To add a control, add a row to `ARMS` with `replaces="targets"`, and to
`models/targets/control_arms.py` the function that makes its targets, named as the arm with
underscores.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

BASELINE, TRANSFER = "baseline", "transfer"


@dataclass(frozen=True)
class Arm:
    """One way to train a model.

    Attributes:
        name: as in `training.arms`, the results and the report.
        takes: how knowledge enters the training: as targets of the transfer loss, as whole
            embeddings among the model's features, or not at all.
        colour: of its lines in charts.
        dash: likewise, so that lines differ without colour.
        replaces: controls only: whether the profiles' targets are replaced, or the item vectors
            that users are the mean of, before targets are made.
        knows_profiles: whether anything of the profiles is left in what the training takes.
        models: the only models that have this arm; None means all that knowledge enters.
    """

    name: str
    takes: Literal["nothing", "targets", "features"]
    colour: str
    dash: str = "solid"
    replaces: Literal["targets", "item vectors"] | None = None
    knows_profiles: bool = True
    models: tuple[str, ...] | None = None

    @property
    def is_control(self) -> bool:
        """Whether it tells knowledge from regularisation, rather than transfers any."""
        return self.replaces is not None

    @property
    def is_treatment(self) -> bool:
        """Whether it is what an experiment is about: neither baseline nor control."""
        return self.takes != "nothing" and not self.is_control

    def suits(self, model: str, tapped: Collection[object]) -> bool:
        """Whether `model`, which knowledge enters on the sides `tapped`, has this arm."""
        if self.models is not None:
            return model in self.models
        return self.takes == "nothing" or bool(tapped)


ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm(BASELINE, "nothing", "#8c97a6", knows_profiles=False),
        Arm(TRANSFER, "targets", "#3a86c8"),
        Arm("kar", "features", "#8c6d31", models=("DeepFM", "DCN", "AutoInt")),
        Arm("shuffled", "targets", "#c9803c", "dash", "targets"),
        Arm("shuffled-items", "targets", "#a8674f", "longdashdot", "item vectors"),
        Arm("noise", "targets", "#9472c8", "dot", "targets"),
        Arm("history-svd", "targets", "#3f9d7d", "dashdot", "targets", knows_profiles=False),
        Arm("genre-histogram", "targets", "#bd6490", "longdash", "targets", knows_profiles=False),
    )
}


SERVED = tuple(arm.name for arm in ARMS.values() if not arm.is_control and arm.models is None)
"""Arms whose models the nightly flow can publish: they serve every user without text features."""


if TYPE_CHECKING:
    ArmName = str
    ServedArm = str
else:
    ArmName = Literal[tuple(ARMS)]
    ServedArm = Literal[SERVED]
