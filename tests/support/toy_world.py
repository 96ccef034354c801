"""The toy world: users of two tastes and the films they like, at three sizes; rows by hand."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.schemas import INTERACTIONS, ITEMS

Pairs = tuple[list[str], list[str]]


@dataclass(frozen=True)
class ToyWorld:
    """Even users like films of the first half, odd ones of the second; the order is random."""

    n_users: int
    n_items: int
    n_liked: int
    seed: int

    @property
    def users(self) -> list[str]:
        return [f"u{number}" for number in range(self.n_users)]

    @property
    def items(self) -> list[str]:
        return [f"i{number}" for number in range(self.n_items)]

    def pairs(self, held_out: int = 0) -> tuple[Pairs, Pairs]:
        """Users with films, the last `held_out` of each user in the second part."""
        rng, half = np.random.default_rng(self.seed), self.n_items // 2
        parts: tuple[Pairs, Pairs] = ([], []), ([], [])
        for number, user in enumerate(self.users):
            liked = rng.permutation(half)[: self.n_liked] + (number % 2) * half
            for place, item in enumerate(liked):
                users, items = parts[place >= self.n_liked - held_out]
                users.append(user)
                items.append(self.items[item])
        return parts

    def interactions(self) -> pa.Table:
        """`INTERACTIONS` with ratings from 1 to 5, a second apart, users in a random order."""
        (users, items), _ = self.pairs()
        rng, n = np.random.default_rng(self.seed), len(users)
        columns = [users, items, rng.integers(1, 6, n).astype(float), rng.permutation(n)]
        return pa.table(columns, INTERACTIONS.names).cast(INTERACTIONS)

    def catalogue(self) -> pa.Table:
        """`ITEMS`: each title a word of its own, each half of the films a genre."""
        return catalogue(
            *(
                (item, f"Title{n}word", 1960 + n, ["Comedy" if n < self.n_items // 2 else "Horror"])
                for n, item in enumerate(self.items)
            )
        )

    def vectors(self, side: str, width: int) -> tuple[list[str], NDArray[np.float32]]:
        """Ids in reverse, and their vectors around the taste's centre: unit variance, mean 0."""
        rng = np.random.default_rng(1)
        centres = rng.normal(size=(2, width))
        ids = (self.users if side == "users" else self.items)[::-1]
        numbers = np.arange(len(ids))[::-1]
        taste = numbers % 2 if side == "users" else (numbers >= self.n_items // 2).astype(int)
        found = (centres[taste] + 0.1 * rng.normal(size=(len(ids), width))).astype(np.float32)
        return ids, (found - found.mean(0)) / found.std()

    def write(self, folder: Path) -> dict[str, Any]:
        """Write toy.inter, toy.item and toy.user; returns a configuration's `dataset`."""
        log = _rows(self.interactions())
        films = [(*row, genres[0]) for *row, genres in _rows(self.catalogue())]
        people = [
            (user, "astronaut", f"zip-{n}-code", 20 + n % 50) for n, user in enumerate(self.users)
        ]
        for name, header, rows in (
            ("inter", "user_id:token item_id:token rating:float timestamp:float", log),
            ("item", "item_id:token title:token_seq year:token genres:token_seq", films),
            ("user", "user_id:token job:token zip:token age:token", people),
        ):
            lines = ["\t".join(map(str, row)) for row in (header.split(), *rows)]
            (folder / f"toy.{name}").write_text("\n".join(lines) + "\n")
        fields = ("title", "year", "genres")
        return {"name": "toy", "path": str(folder), **{field: field for field in fields}}


TINY = ToyWorld(n_users=12, n_items=10, n_liked=4, seed=0)
SMALL = ToyWorld(n_users=40, n_items=30, n_liked=9, seed=0)
MEDIUM = ToyWorld(n_users=60, n_items=40, n_liked=10, seed=3)


def train(*rows: tuple) -> pa.Table:
    """Interactions written by hand: user, item, and where they matter rating and timestamp."""
    return _table(INTERACTIONS, rows)


def catalogue(*rows: tuple) -> pa.Table:
    """Items written by hand: id, and where they matter title, year and genres."""
    return _table(ITEMS, rows)


def _table(schema: pa.Schema, rows: tuple[tuple, ...]) -> pa.Table:
    nothing = [None] * len(schema)
    padded = [dict(zip(schema.names, (*row, *nothing), strict=False)) for row in rows]
    return pa.Table.from_pylist(padded, schema=schema)


def _rows(table: pa.Table) -> list[tuple]:
    return [tuple(row.values()) for row in table.to_pylist()]
