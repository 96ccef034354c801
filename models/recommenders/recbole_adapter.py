"""RecBole 1.2.1 contained: the only file that imports it.

RecBole's configuration reads the command line, evaluates strings, sets environment variables
and uses numpy names that are gone; its data set reads files. All of that is overridden here, so
that a model is built from ids in memory and nothing outside it changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.schemas import GENRES, ITEM, USER, YEAR


@dataclass(frozen=True)
class Universe:
    """All users and items of a data set, by raw ids.

    Attributes:
        users, items: all raw ids, in training or not.
        years: per item, empty where unknown; read by context-aware models only.
        genres: per item, likewise.
    """

    users: Sequence[str]
    items: Sequence[str]
    years: Sequence[str] = ()
    genres: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class Log:
    """Training interactions by raw ids, all of equal length.

    Attributes:
        users, items: one pair each.
        times: int64, Unix seconds; empty means in the order of the pairs.
        labels: float32, 1 for liked; where given, a context-aware model learns them rather than
            sampled negatives.
    """

    users: Sequence[str]
    items: Sequence[str]
    times: NDArray[np.int64] | None = None
    labels: NDArray[np.float32] | None = None


@cache
def config_class() -> Any:
    """Return RecBole's configuration class, contained."""
    from recbole.config import Config

    _import_models()

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
    from recbole.data.dataset import Dataset
    from recbole.utils import FeatureSource, FeatureType

    class MemoryDataset(Dataset):  # type: ignore[misc]
        """RecBole's data set over a log and the universe of ids, both in memory."""

        def _load_data(self, _token: str, _dataset_path: str) -> None:
            import pandas as pd

            log: Log = self.config["log"]
            universe: Universe = self.config["universe"]
            self.inter_feat = pd.DataFrame({USER: list(log.users), ITEM: list(log.items)})
            self.user_feat = pd.DataFrame({USER: list(universe.users)})
            self.item_feat = pd.DataFrame({ITEM: list(universe.items)})
            self._describe(USER, FeatureType.TOKEN, FeatureSource.USER_ID)
            self._describe(ITEM, FeatureType.TOKEN, FeatureSource.ITEM_ID)
            if universe.years:
                self.item_feat[YEAR] = [year or "unknown" for year in universe.years]
                self._describe(YEAR, FeatureType.TOKEN, FeatureSource.ITEM)
            if universe.genres:
                self.item_feat[GENRES] = [np.asarray(g, dtype=str) for g in universe.genres]
                longest = max(1, *map(len, universe.genres))
                self._describe(GENRES, FeatureType.TOKEN_SEQ, FeatureSource.ITEM, longest)

        def _describe(self, field: str, kind: Any, source: Any, length: int = 1) -> None:
            self.field2type[field], self.field2source[field] = kind, source
            self.field2seqlen[field] = length

        def _data_filtering(self) -> None:
            """Filtering is the split's business."""

        def _fill_nan(self) -> None:
            """The padding item alone lacks features; RecBole fills in a way that pandas drops."""
            if YEAR in self.item_feat:
                self.item_feat[YEAR] = self.item_feat[YEAR].fillna(0)
            if GENRES in self.item_feat:
                nothing = np.empty(0, dtype=np.int64)
                self.item_feat[GENRES] = self.item_feat[GENRES].map(
                    lambda genres: genres if isinstance(genres, np.ndarray) else nothing
                )

    return MemoryDataset


@cache
def interaction_class() -> Any:
    """Return RecBole's class of batches."""
    from recbole.data.interaction import Interaction

    return Interaction


def model_class(name: str) -> Any:
    """Return RecBole's model class of that name."""
    from recbole.utils import get_model

    _restore_scipy()
    return get_model(name)


def _import_models() -> None:
    """Import RecBole's models before its configuration does.

    recbole/model/sequential_recommender/sine.py turns autograd's anomaly detection on for the
    whole process, which makes training slow.
    """
    detecting = torch.is_anomaly_enabled()
    import_module("recbole.model.sequential_recommender")
    torch.autograd.set_detect_anomaly(detecting)


def _restore_scipy() -> None:
    """Give SciPy's `dok_matrix` back the `_update` with which graph models fill their adjacency."""
    from scipy.sparse import dok_matrix

    if not hasattr(dok_matrix, "_update"):
        dok_matrix._update = lambda self, cells: self._dict.update(cells)
