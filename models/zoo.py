"""The model zoo: which RecBole models are supported, how their batches look, what is tapped.

Adding a model is one row here and one parameter in `tests/test_contract.py`.
"""

from dataclasses import dataclass
from typing import Literal

from models.config import Tap
from models.errors import BadInput

Loader = Literal["pairwise", "pointwise", "users"]


@dataclass(frozen=True)
class Entry:
    """One supported model.

    Attributes:
        family: RecBole's model family.
        loader: pairwise: (user, item, negative item); pointwise: (user, item, label);
            users: whole users, as RecBole feeds its autoencoders.
        tap: where knowledge enters by default: the user's vector that is scored.
    """

    family: Literal["general"]
    loader: Loader
    tap: Tap


ZOO: dict[str, Entry] = {
    # recbole/model/general_recommender/NAME.py, RecBole 1.2.1
    "BPR": Entry("general", "pairwise", Tap(name="user_embedding")),
    # NeuMF has two user tables; the MLP tower's is the one that meets a learned function.
    "NeuMF": Entry("general", "pointwise", Tap(name="user_mlp_embedding")),
    # SimpleX scores a blend of the user's row and the mean of the history: tap the blend.
    "SimpleX": Entry("general", "pairwise", Tap(kind="method", name="get_UI_aggregation")),
    # The encoder puts out mean and log-variance side by side: the mean alone is the user.
    "MultiVAE": Entry("general", "users", Tap(name="encoder", stop="half")),
}


def entry(model: str) -> Entry:
    """The zoo's row for `model`.

    Raises:
        BadInput: if the model is not supported, with the list of those that are.
    """
    if model not in ZOO:
        raise BadInput(f"models.{model}: not a supported model; supported: {', '.join(ZOO)}")
    return ZOO[model]
