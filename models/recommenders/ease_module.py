"""EASE as a module that is scored and saved like any other (see `closed_form.py`)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn

from models.recommenders.closed_form import ClosedForm, SideInformation, fit


class Ease(nn.Module):
    """A closed form, computed when it is built.

    Its buffers are what `closed_form.ClosedForm.weights` holds, so that a `state_dict` is all
    that scoring needs.
    """

    def __init__(
        self,
        users: NDArray[np.int64],
        items: NDArray[np.int64],
        shape: tuple[int, int],
        settings: Mapping[str, Any],
        alpha: float = 0.0,
        side: SideInformation | None = None,
    ) -> None:
        """Fit EASE, with the knowledge in `side` if there is any.

        Args:
            users: int64 (n,), of the training pairs, by internal ids.
            items: int64 (n,), likewise.
            shape: numbers of internal user and item ids, padding included.
            settings: EASE's hyper-parameters: `reg_weight`, λ; and where knowledge enters,
                `method` and `side_reg`, see `models.recommenders.closed_form.fit`.
            alpha: the knowledge's share.
            side: embeddings by internal ids.

        Raises:
            BadInput: for too many items, or a λ that is out of range.
        """
        super().__init__()
        ones = np.ones(len(users), dtype=np.float32)
        train = sparse.csr_matrix((ones, (users, items)), shape=shape)
        form = fit(
            train,
            settings["reg_weight"],
            settings["method"],
            alpha,
            side,
            settings["side_reg"],
        )
        self.hold(
            {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in form.weights().items()}
        )

    def hold(self, weights: Mapping[str, Tensor]) -> None:
        """Take over weights of any shape: those of users' embeddings may or may not be there."""
        for name, value in weights.items():
            self.register_buffer(name, value)

    @torch.no_grad()
    def scores(self, users: Tensor) -> Tensor:
        """Scores of all items: float32 (len(users), n_items)."""
        arrays = {name: value.cpu().numpy() for name, value in self.named_buffers()}
        form = ClosedForm.from_weights(arrays)
        return torch.from_numpy(form.scores(users.cpu().numpy())).to(users.device)
