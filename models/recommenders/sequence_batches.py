"""Users' histories as sequences: training batches and inputs of sequential models.

RecBole writes every prefix of every history out as a row of padded item ids
(recbole/data/dataset/sequential_dataset.py); here a batch's windows are read from one flat array.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from models.arrow import Ints
from models.recommenders.batches import NEGATIVE_ITEM, Batch, Batches, Negatives
from models.schemas import ITEM, USER

ITEM_LIST = f"{ITEM}_list"
LENGTH = "item_length"
MASKED = {
    "MASK_INDEX": "MASK_INDEX",
    "MASK_ITEM_SEQ": f"Mask_{ITEM}_list",
    "POS_ITEMS": f"Pos_{ITEM}",
    "NEG_ITEMS": f"Neg_{ITEM}",
}
"""RecBole's names of a masked sequence's columns (recbole/data/transform.py)."""


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
    def from_pairs(
        cls, users: Ints, items: Ints, n_users: int, longest: int, device: torch.device
    ) -> Self:
        """Build from pairs that are sorted by user, then by time."""
        starts = np.concatenate(([0], np.cumsum(np.bincount(users, minlength=n_users))))
        return cls(
            torch.from_numpy(items).to(device),
            torch.from_numpy(starts.astype(np.int64)).to(device),
            longest,
        )

    def extended(self, users: Ints, items: Ints) -> Self:
        """Add later items, oldest first, at the ends of their users' histories."""
        n_users = len(self.starts) - 1
        before = np.repeat(np.arange(n_users), np.diff(self.starts.cpu().numpy()))
        everyone = np.concatenate((before, users))
        order = np.argsort(everyone, kind="stable")
        all_items = np.concatenate((self.items.cpu().numpy(), items))
        device = self.items.device
        return self.from_pairs(everyone[order], all_items[order], n_users, self.longest, device)

    def window(self, begins: Tensor, ends: Tensor) -> Tensor:
        """Read items from `begins` up to `ends`, 0-padded at the end: int64 (n, longest)."""
        places = begins[:, None] + torch.arange(self.longest, device=begins.device)
        inside = places < ends[:, None]
        return torch.where(inside, self.items[places.clamp(max=len(self.items) - 1)], 0)

    def latest(self, users: Tensor) -> Batch:
        """Read the last items of users' histories, in RecBole's columns."""
        begins, ends = self.starts[users], self.starts[users + 1]
        begins = torch.maximum(begins, ends - self.longest)
        return {ITEM_LIST: self.window(begins, ends), LENGTH: (ends - begins).clamp(min=1)}


def sequence_batches(
    sequences: Sequences, size: int, generator: torch.Generator, negatives: Negatives | None
) -> Batches:
    """Batch (user, items so far, next item), for every interaction that has one before it.

    Negatives are for models that compare two items; others need none.
    """
    lengths = torch.diff(sequences.starts)
    everyone = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    places = torch.arange(len(everyone), device=everyone.device)
    has_past = places > sequences.starts[everyone]
    all_users, all_places = everyone[has_past], places[has_past]

    def batch(rows: Tensor) -> list[Batch]:
        users, places = all_users[rows], all_places[rows]
        begins = torch.maximum(sequences.starts[users], places - sequences.longest)
        columns = {
            USER: users,
            ITEM_LIST: sequences.window(begins, places),
            LENGTH: places - begins,
            ITEM: sequences.items[places],
        }
        if negatives is not None:
            columns[NEGATIVE_ITEM] = negatives.draw(users)[0]
        return [columns]

    return Batches(len(all_users), size, generator, batch)


@dataclass(frozen=True)
class Masking:
    """How items are hidden (BERT4Rec, Sun et al. 2019, section 3.6).

    Attributes:
        ratio: share of items hidden in a batch of the first kind.
        last_ratio: share of batches of the second kind, which hide the last item alone, as
            prediction does.
        token: internal id of the mask.
        generator: of the masks.
    """

    ratio: float
    last_ratio: float
    token: int
    generator: torch.Generator

    def hidden(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Draw which items of a batch are hidden: bool (n, longest)."""
        device = items.device
        last = torch.arange(items.shape[1], device=device) == (lengths - 1)[:, None]
        kind = torch.rand(1, generator=self.generator, device=device)
        if float(kind) < self.last_ratio:
            return last
        drawn = torch.rand(items.shape, generator=self.generator, device=device)
        hidden = (drawn < self.ratio) & (items != 0)
        # RecBole's loss leaves place 0 out: a row needs another one to count at all.
        return hidden | (last & ~hidden[:, 1:].any(dim=1, keepdim=True))


def masked_batches(
    sequences: Sequences, size: int, negatives: Negatives, masking: Masking
) -> Batches:
    """Batch windows of users' histories with some items hidden, to be guessed.

    Windows start every tenth of a window, the last one ends with the history; RecBole takes
    every prefix, which is the same to the model and costs several times as much.
    """
    all_users, all_ends = _window_ends(sequences, max(sequences.longest // 10, 1))

    def batch(rows: Tensor) -> list[Batch]:
        users, ends = all_users[rows], all_ends[rows]
        begins = torch.maximum(sequences.starts[users], ends - sequences.longest)
        items = sequences.window(begins, ends)
        hidden = masking.hidden(items, ends - begins)
        slots = max(int(hidden.sum(dim=1).max()), 1)
        # Hidden places first, in order; RecBole pads with place 0, which its loss ignores.
        places = torch.argsort((~hidden).to(torch.int8), dim=1, stable=True)[:, :slots]
        is_hidden = torch.gather(hidden, 1, places)
        places = torch.where(is_hidden, places, 0)
        drawn = negatives.draw(users.repeat_interleave(slots))[0]
        columns = {
            "MASK_ITEM_SEQ": torch.where(hidden, masking.token, items),
            "MASK_INDEX": places,
            "POS_ITEMS": torch.where(is_hidden, torch.gather(items, 1, places), 0),
            "NEG_ITEMS": drawn.view(len(users), slots),
        }
        named = {MASKED[name]: column for name, column in columns.items()}
        return [{USER: users, LENGTH: ends - begins} | named]

    return Batches(len(all_users), size, masking.generator, batch)


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
