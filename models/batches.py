"""Training batches as whole tensors: shuffling and negative sampling without per-row Python.

RecBole's loader (recbole/data/dataloader/general_dataloader.py) copies every column and samples
negatives for each batch in Python; here an epoch is drawn in large blocks on the device.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from models.errors import BadInput
from models.zoo import Loader

_BLOCK_ROWS = 1 << 22


@dataclass(frozen=True)
class Fields:
    """RecBole's names of a batch's columns."""

    user: str
    item: str
    negative: str
    label: str


@dataclass(frozen=True)
class Sampling:
    """RecBole's `train_neg_sample_args`, as far as it does not depend on the model's state."""

    per_positive: int = 1
    popularity: float | None = None
    """Exponent of item counts; None means uniform."""

    @classmethod
    def from_recbole(cls, arguments: Mapping[str, object]) -> "Sampling":
        """Read RecBole's arguments; dynamic sampling is refused."""
        if arguments.get("dynamic"):
            raise BadInput("train_neg_sample_args.dynamic: dynamic negatives are not supported")
        popular = arguments.get("distribution") == "popularity"
        return cls(
            per_positive=int(str(arguments.get("sample_num", 1))),
            popularity=float(str(arguments.get("alpha", 1.0))) if popular else None,
        )


class Batches:
    """Iterates over one epoch of training batches, in a new order and with new negatives.

    Args:
        users: int64 (n,), internal ids of the training pairs (1 …; 0 is RecBole's padding).
        items: int64 (n,), likewise.
        n_users: number of internal user ids, padding included.
        n_items: number of internal item ids, padding included.
        loader: the form of a batch, see `models.zoo`.
        batch_size: RecBole's `train_batch_size`: rows, negatives counted, or users.
        sampling: how negatives are drawn.
        fields: the names of the columns.
        generator: source of all randomness here, on the tensors' device.

    Raises:
        BadInput: if some user has interacted with every item, so that there is no negative.
    """

    def __init__(
        self,
        users: Tensor,
        items: Tensor,
        n_users: int,
        n_items: int,
        loader: Loader,
        batch_size: int,
        sampling: Sampling,
        fields: Fields,
        generator: torch.Generator,
    ) -> None:
        self.users, self.items = users, items
        self.n_items = n_items
        self.loader = loader
        self.sampling = sampling
        self.fields = fields
        self.generator = generator
        counts = torch.bincount(users, minlength=n_users)
        drawable = n_items - 1 if sampling.popularity is None else len(items.unique())
        if loader != "users" and int(counts.max()) >= drawable:
            raise BadInput(
                f"a user has interacted with all {drawable} items that negative sampling draws "
                "from: no negative item is left for that user; drop the user"
            )
        self._positives = torch.sort(users * n_items + items).values
        self._active_users = torch.nonzero(counts, as_tuple=True)[0]
        if sampling.popularity is not None:
            popularity = torch.bincount(items, minlength=n_items).float()
            self._item_weights = popularity**sampling.popularity
            self._item_weights[0] = 0.0
        rows_per_positive = {
            "pairwise": sampling.per_positive,
            "pointwise": sampling.per_positive + 1,
            "users": 1,
        }[loader]
        self._step = max(batch_size // rows_per_positive, 1)

    def __len__(self) -> int:
        rows = len(self._active_users) if self.loader == "users" else len(self.users)
        return -(-rows // self._step)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        if self.loader == "users":
            for chunk in self._shuffled(len(self._active_users)).split(self._step):
                yield {self.fields.user: self._active_users[chunk]}
            return
        block_rows = max(_BLOCK_ROWS // self._step, 1) * self._step
        for block in self._shuffled(len(self.users)).split(block_rows):
            users, items = self.users[block], self.items[block]
            negatives = self._negatives(users)
            for start in range(0, len(block), self._step):
                rows = slice(start, start + self._step)
                yield self._batch(users[rows], items[rows], negatives[:, rows].reshape(-1))

    def _shuffled(self, n: int) -> Tensor:
        return torch.randperm(n, generator=self.generator, device=self.users.device)

    def _batch(self, users: Tensor, items: Tensor, negatives: Tensor) -> dict[str, Tensor]:
        """Columns in RecBole's layout: one repeat of the positives per negative."""
        per_positive = self.sampling.per_positive
        names = self.fields
        if self.loader == "pairwise":
            return {
                names.user: users.repeat(per_positive),
                names.item: items.repeat(per_positive),
                names.negative: negatives,
            }
        labels = torch.zeros(len(users) + len(negatives), device=users.device)
        labels[: len(users)] = 1.0
        return {
            names.user: users.repeat(per_positive + 1),
            names.item: torch.cat((items, negatives)),
            names.label: labels,
        }

    def _negatives(self, users: Tensor) -> Tensor:
        """Items that their users have not interacted with: int64 (per_positive, n)."""
        users = users.repeat(self.sampling.per_positive)
        drawn = self._draw(len(users))
        redraw = torch.nonzero(self._is_positive(users, drawn), as_tuple=True)[0]
        while len(redraw):
            drawn[redraw] = self._draw(len(redraw))
            redraw = redraw[self._is_positive(users[redraw], drawn[redraw])]
        return drawn.view(self.sampling.per_positive, -1)

    def _draw(self, n: int) -> Tensor:
        if self.sampling.popularity is not None:
            return torch.multinomial(
                self._item_weights, n, replacement=True, generator=self.generator
            )
        return torch.randint(
            1, self.n_items, (n,), generator=self.generator, device=self.users.device
        )

    def _is_positive(self, users: Tensor, items: Tensor) -> Tensor:
        codes = users * self.n_items + items
        nearest = torch.searchsorted(self._positives, codes).clamp_(max=len(self._positives) - 1)
        return self._positives[nearest] == codes
