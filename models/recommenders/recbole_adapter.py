"""RecBole 1.2.1 contained: the only file that imports it.

RecBole's configuration reads the command line, evaluates strings, sets environment variables
and uses numpy names that are gone; its data set reads files. All of that is overridden here, so
that a model is built from ids in memory and nothing outside it changes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from models.arrow import Ints, Singles, Strings, numbered, positions, strings
from models.recommenders.speedups import large_graph
from models.schemas import ITEM, USER

PADDING = "[PAD]"
"""What internal id 0 stands for."""
Column = Sequence[str] | Sequence[Sequence[str]]


@dataclass(frozen=True)
class Universe:
    """All users and items of a data set, by raw ids.

    Attributes:
        users, items: all raw ids, in training or not.
        of_items: features of items by column: a word each, empty where unknown, or a list of words;
            read by context-aware models only.
        of_users: likewise of users.
    """

    users: Strings
    items: Strings
    of_items: Mapping[str, Column] = field(default_factory=dict)
    of_users: Mapping[str, Column] = field(default_factory=dict)


@dataclass(frozen=True)
class Log:
    """Training interactions by raw ids, all of equal length.

    Attributes:
        users, items: one pair each.
        times: int64, Unix seconds; empty means in the order of the pairs.
        labels: float32, 1 for liked; where given, a context-aware model learns them rather than
            sampled negatives.
    """

    users: Strings
    items: Strings
    times: Ints | None = None
    labels: Singles | None = None


@cache
def config_class() -> Any:
    """Return RecBole's configuration class, contained."""
    from recbole.config import Config

    # Imported before, because sequential_recommender/sine.py turns autograd's anomaly detection on
    # for the whole process, which makes training slow.
    detecting = torch.is_anomaly_enabled()
    import_module("recbole.model.sequential_recommender")
    torch.autograd.set_detect_anomaly(detecting)

    class ContainedConfig(Config):  # type: ignore[misc]
        """RecBole's configuration without the command line, `eval` and the environment."""

        def compatibility_settings(self) -> None:
            """RecBole would restore numpy names that numpy 2 has no target for."""

        def _load_cmd_line(self) -> dict[str, Any]:
            return {}

        def _convert_config_dict(self, config_dict: dict[str, Any]) -> dict[str, Any]:
            return config_dict

        def _init_device(self) -> None:
            self.final_config_dict |= {"single_spec": True, "local_rank": 0}

    return ContainedConfig


@cache
def dataset_class() -> Any:
    """Return RecBole's data set class, over tables in memory."""
    import pandas as pd
    from recbole.data.dataset import Dataset
    from recbole.utils import FeatureSource, FeatureType

    class MemoryDataset(Dataset):  # type: ignore[misc]
        """RecBole's data set over a log and the universe of ids, both in memory."""

        def _load_data(self, _token: str, _dataset_path: str) -> None:
            log: Log = self.config["log"]
            universe: Universe = self.config["universe"]
            self.names: dict[str, pa.Array] = {}
            pairs = {
                USER: self._number(USER, FeatureSource.USER_ID, log.users, universe.users),
                ITEM: self._number(ITEM, FeatureSource.ITEM_ID, log.items, universe.items),
            }
            self.inter_feat = pd.DataFrame(pairs, copy=False)
            for table, source, columns in (
                (self.item_feat, FeatureSource.ITEM, universe.of_items),
                (self.user_feat, FeatureSource.USER, universe.of_users),
            ):
                for name, rows in columns.items():
                    table[name], longest = _values(rows)
                    kind = FeatureType.TOKEN_SEQ if longest else FeatureType.TOKEN
                    self._describe(name, kind, source, max(longest, 1))

        def _number(self, name: str, source: Any, logged: Strings, known: Strings) -> Any:
            """Give ids from 1 on, to those of the log first, as they appear: the log's, int64."""
            numbers, words = numbered(logged, known)
            self.names[name] = pa.concat_arrays([pa.array([PADDING], words.type), words])
            self.field2id_token[name] = self.names[name]
            ids = positions(strings(known), words) + 1
            setattr(self, f"{source.value[:4]}_feat", pd.DataFrame({name: ids}))
            self._describe(name, FeatureType.TOKEN, source)
            return numbers + 1

        def _describe(self, field: str, kind: Any, source: Any, length: int = 1) -> None:
            self.field2type[field], self.field2source[field] = kind, source
            self.field2seqlen[field] = length

        def _data_filtering(self) -> None:
            """Filtering is the split's business."""

        def _remap_ID_all(self) -> None:  # noqa: N802 - RecBole's name
            """Users and items have their ids; what is left are features' words."""
            for name in self._rest_fields:
                self._remap(self._get_remap_list(np.array([name])))

        def _fill_nan(self) -> None:
            """The padding ids alone lack features; RecBole fills in a way that pandas drops."""
            _pad_features(self.item_feat)
            _pad_features(self.user_feat)

    return MemoryDataset


def _pad_features(table: Any) -> None:
    """Give the first row, padding, no word or an empty list in all columns but the ids'."""
    import pandas as pd

    for name in table.columns[1:]:
        values = table[name].tolist()
        is_list = any(isinstance(value, np.ndarray) for value in values)
        values[0] = np.empty(0, dtype=np.int64) if is_list else 0
        table[name] = pd.Series(values, table.index)


def _values(rows: Column) -> tuple[list[Any], int]:
    """A feature's values as RecBole's tables hold them; most words of a list, 0 for a word each."""
    if isinstance(rows[0], str):
        return [word or "unknown" for word in rows], 0
    return [np.asarray(words, dtype=str) for words in rows], max(1, *map(len, rows))


@cache
def interaction_class() -> Any:
    """Return RecBole's class of batches."""
    from recbole.data.interaction import Interaction

    return Interaction


def model_class(name: str) -> Any:
    """Return RecBole's model class of that name."""
    from recbole.utils import get_model
    from scipy.sparse import dok_matrix

    if not hasattr(dok_matrix, "_update"):  # with which graph models fill their adjacency
        dok_matrix._update = lambda self, cells: self._dict.update(cells)
    model = get_model(name)
    return large_graph(model) if name == "LightGCN" else model
