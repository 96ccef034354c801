"""Users' histories as sequences: training batches and inputs of sequential models.

RecBole writes every prefix of every history out as a row of padded item ids
(recbole/data/dataset/sequential_dataset.py); here a batch's windows are read from one flat array.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.recommenders.batches import Batch, Fields, Negatives, shuffled

LIST_SUFFIX = "_list"
LENGTH = "item_length"


@dataclass(frozen=True)
class Sequences:
    """All histories, one after the other, each oldest first.

    Attributes:
        items: int64 (n,), internal ids.
        starts: int64 (n_users + 1,), where each internal user's history begins.
        longest: how many items a model sees at most.
    """

    items: Tensor
    starts: Tensor
    longest: int

    @classmethod
    def of(
        cls,
        users: NDArray[np.int64],
        items: NDArray[np.int64],
        n_users: int,
        longest: int,
        device: torch.device,
    ) -> Self:
        """Of pairs sorted by user, then by time."""
        starts = np.concatenate(([0], np.cumsum(np.bincount(users, minlength=n_users))))
        return cls(
            torch.from_numpy(items).to(device),
            torch.from_numpy(starts.astype(np.int64)).to(device),
            longest,
        )

    def extended(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> Self:
        """The same with later items, oldest first, at the ends of their users' histories."""
        n_users = len(self.starts) - 1
        before = np.repeat(np.arange(n_users), np.diff(self.starts.cpu().numpy()))
        everyone = np.concatenate((before, users))
        order = np.argsort(everyone, kind="stable")
        all_items = np.concatenate((self.items.cpu().numpy(), items))
        device = self.items.device
        return self.of(everyone[order], all_items[order], n_users, self.longest, device)

    def window(self, begins: Tensor, ends: Tensor) -> Tensor:
        """Items from `begins` up to `ends`, padded with 0 at the end: int64 (n, longest)."""
        places = begins[:, None] + torch.arange(self.longest, device=begins.device)
        inside = places < ends[:, None]
        return torch.where(inside, self.items[places.clamp(max=len(self.items) - 1)], 0)

    def latest(self, users: Tensor, fields: Fields) -> Batch:
        """The last items of users' histories, in RecBole's columns."""
        begins, ends = self.starts[users], self.starts[users + 1]
        begins = torch.maximum(begins, ends - self.longest)
        return {
            fields.item + LIST_SUFFIX: self.window(begins, ends),
            LENGTH: (ends - begins).clamp(min=1),
        }


class SequenceBatches:
    """(user, items so far, next item), for every interaction that has one before it."""

    def __init__(
        self,
        sequences: Sequences,
        fields: Fields,
        batch_size: int,
        generator: torch.Generator,
        negatives: Negatives | None,
    ) -> None:
        """Negatives are for models that compare two items; others need none."""
        self.sequences, self.fields, self.negatives = sequences, fields, negatives
        self.generator = generator
        self._step = batch_size
        lengths = torch.diff(sequences.starts)
        users = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
        places = torch.arange(len(users), device=users.device)
        has_past = places > sequences.starts[users]
        self._users, self._places = users[has_past], places[has_past]

    def __len__(self) -> int:
        return -(-len(self._users) // self._step)

    def __iter__(self) -> Iterator[Batch]:
        sequences, fields = self.sequences, self.fields
        for rows in shuffled(len(self._users), self.generator).split(self._step):
            users, places = self._users[rows], self._places[rows]
            begins = torch.maximum(sequences.starts[users], places - sequences.longest)
            batch = {
                fields.user: users,
                fields.item + LIST_SUFFIX: sequences.window(begins, places),
                LENGTH: places - begins,
                fields.item: sequences.items[places],
            }
            if self.negatives is not None:
                batch[fields.negative] = self.negatives.of(users)[0]
            yield batch


@dataclass(frozen=True)
class Masking:
    """How items are hidden (BERT4Rec, Sun et al. 2019, section 3.6).

    Attributes:
        ratio: share of items hidden in a batch of the first kind.
        last_ratio: share of batches of the second kind, which hide the last item alone, as
            prediction does.
        token: internal id of the mask.
        columns: RecBole's names of MASK_ITEM_SEQ, POS_ITEMS, NEG_ITEMS and MASK_INDEX.
    """

    ratio: float
    last_ratio: float
    token: int
    columns: Mapping[str, str]


class MaskedBatches:
    """Windows of users' histories with some items hidden, to be guessed.

    Windows start every tenth of a window, the last one ends with the history; RecBole takes
    every prefix, which is the same to the model and costs several times as much.
    """

    def __init__(
        self,
        sequences: Sequences,
        fields: Fields,
        batch_size: int,
        generator: torch.Generator,
        negatives: Negatives,
        masking: Masking,
    ) -> None:
        self.sequences, self.fields = sequences, fields
        self.negatives, self.masking = negatives, masking
        self.generator = generator
        self._step = batch_size
        self._users, self._ends = _window_ends(sequences, max(sequences.longest // 10, 1))

    def __len__(self) -> int:
        return -(-len(self._users) // self._step)

    def __iter__(self) -> Iterator[Batch]:
        for rows in shuffled(len(self._users), self.generator).split(self._step):
            yield self._batch(self._users[rows], self._ends[rows])

    def _batch(self, users: Tensor, ends: Tensor) -> Batch:
        begins = torch.maximum(self.sequences.starts[users], ends - self.sequences.longest)
        items = self.sequences.window(begins, ends)
        hidden = self._hidden(items, ends - begins)
        names = self.masking.columns
        slots = max(int(hidden.sum(dim=1).max()), 1)
        # Hidden places first, in order; RecBole pads with place 0, which its loss ignores.
        places = torch.argsort((~hidden).to(torch.int8), dim=1, stable=True)[:, :slots]
        taken = torch.gather(hidden, 1, places)
        places = torch.where(taken, places, 0)
        return {
            self.fields.user: users,
            LENGTH: ends - begins,
            names["MASK_ITEM_SEQ"]: torch.where(hidden, self.masking.token, items),
            names["MASK_INDEX"]: places,
            names["POS_ITEMS"]: torch.where(taken, torch.gather(items, 1, places), 0),
            names["NEG_ITEMS"]: self._negative_items(users, slots),
        }

    def _hidden(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Which items of a batch are hidden: bool (n, longest)."""
        device = items.device
        last = torch.arange(items.shape[1], device=device) == (lengths - 1)[:, None]
        kind = torch.rand(1, generator=self.generator, device=device)
        if float(kind) < self.masking.last_ratio:
            return last
        drawn = torch.rand(items.shape, generator=self.generator, device=device)
        hidden = (drawn < self.masking.ratio) & (items != 0)
        # RecBole's loss leaves place 0 out: a row needs another one to count at all.
        return hidden | (last & ~hidden[:, 1:].any(dim=1, keepdim=True))

    def _negative_items(self, users: Tensor, slots: int) -> Tensor:
        return self.negatives.of(users.repeat_interleave(slots))[0].view(len(users), slots)


def _window_ends(sequences: Sequences, stride: int) -> tuple[Tensor, Tensor]:
    """User and end of every window: int64 (n,) each."""
    starts, longest = sequences.starts.cpu().numpy(), sequences.longest
    lengths = np.diff(starts)
    extra = np.maximum(lengths - longest, 0)
    counts = np.where(lengths > 0, -(-extra // stride) + 1, 0)
    users = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
    ends = starts[1:][users] - np.minimum(number * stride, extra[users])
    device = sequences.items.device
    return torch.from_numpy(users).to(device), torch.from_numpy(ends).to(device)
