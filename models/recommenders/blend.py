"""Blend: iALS and EASE side by side, a score from both.

A low rank (`ials`) and a full matrix of item weights (`closed_form`) err differently, and knowledge
enters them at different places: as a prior mean of vectors, and as what item weights are pulled to.
Both are fitted by themselves, with the same embeddings and the same α. A user's scores of each are
brought to mean 0 and standard deviation 1 over the catalogue, and with the share s of iALS

    score = s·iALS + (1 − s)·EASE.

Linear blends of standardised scores are usual where models are combined (Koren 2009, "The BellKor
solution to the Netflix Grand Prize", blends by regression).
"""

from typing import Any

import torch
from torch import Tensor

from models.recommenders.closed_form import Ease, SideInformation
from models.recommenders.ials import Ials
from models.schemas import ITEM


class Blend(Ials):
    """iALS, swept as ever, beside an EASE."""

    computed = "ease."
    """Tensors with this prefix are computed from the training part, never carried over."""

    def take_prior(self, alpha: float, side: SideInformation) -> None:
        """Give both the knowledge in `side`; `alpha` is its share, 0 to 1; see `Ials`."""
        super().take_prior(alpha, side)
        of_ease = {**self._settings, "reg_weight": self._settings["ease_reg_weight"]}
        self.ease = Ease(*self._pairs, self._shape, of_ease)
        self.ease.take_prior(alpha, side)

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Score all items for users, as RecBole's models do: float32 (n, n_items)."""
        low_rank = standardised(super().full_sort_predict(interaction))
        return torch.lerp(
            standardised(self.ease.full_sort_predict(interaction)),
            low_rank,
            self._settings["ials_share"],
        )

    def predict(self, interaction: Any) -> Tensor:
        """Score user-item pairs, as RecBole's models do: float32 (n,)."""
        scores = self.full_sort_predict(interaction)
        return scores.gather(1, interaction[ITEM][:, None])[:, 0]


def standardised(scores: Tensor) -> Tensor:
    """Rows of mean 0 and standard deviation 1 over all columns but padding's."""
    real = scores[:, 1:]
    deviation = real.std(dim=1, keepdim=True).clamp(min=1e-12)
    return (scores - real.mean(dim=1, keepdim=True)) / deviation
