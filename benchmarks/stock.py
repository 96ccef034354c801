"""Run stock RecBole 1.2.1: its configuration, data set, loaders, trainer and evaluator.

`_mended` repairs only what does not run on a current stack. `recbole.quick_start` cannot be
imported there, so its steps are repeated here. Output goes to a separate folder. Nothing of
`models/` is used.
"""

import contextlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pyarrow import csv

from benchmarks.movielens import MovieLens
from models.schemas import ITEM, RATING, TIMESTAMP, USER

_NAME = "movielens"
_HEADER = f"{USER}:token\t{ITEM}:token\t{RATING}:float\t{TIMESTAMP}:float\n"


def write_atomic(data: MovieLens, folder: Path) -> None:
    """Write the three parts as RecBole's `benchmark_filename` wants them."""
    target = folder / _NAME
    target.mkdir(parents=True)
    options = csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    for part, table in (("train", data.train), ("valid", data.valid), ("test", data.test)):
        with pa.OSFile(str(target / f"{_NAME}.{part}.inter"), "wb") as stream:
            stream.write(_HEADER.encode())
            csv.write_csv(table, stream, options)


@cache
def _mended() -> Any:
    """RecBole's `Config`, made to load: numpy's and scipy's lost names, no command line."""
    from recbole.config import Config
    from scipy.sparse import dok_matrix

    for name, kind in (("bool", np.bool_), ("int", int), ("float", float), ("object", object)):
        if name not in vars(np):
            setattr(np, name, kind)
    if not hasattr(dok_matrix, "_update"):
        dok_matrix._update = lambda self, cells: self._dict.update(cells)

    class Mended(Config):  # type: ignore[misc]
        """Takes its settings from the dictionary alone."""

        def compatibility_settings(self) -> None:
            """Above."""

        def _load_cmd_line(self) -> dict[str, Any]:
            return {}

        def _init_device(self) -> None:
            self.final_config_dict |= {"single_spec": True, "local_rank": 0}

    return Mended


def _conditions(folder: Path, seed: int) -> dict[str, Any]:
    """Our split, full ranking, one metric as on our side; what is written stays in `folder`."""
    return {
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "saved"),
        "benchmark_filename": ["train", "valid", "test"],
        # The columns that RecBole's own configuration of ml-100k loads.
        "load_col": {"inter": [USER, ITEM, RATING, TIMESTAMP]},
        "eval_args": {"split": {"RS": [0.7, 0.1, 0.2]}, "mode": "full"},
        "metrics": ["NDCG"],
        "topk": [10],
        "valid_metric": "NDCG@10",
        "metric_decimal_place": 12,
        "show_progress": False,
        "seed": seed,
    }


class Stock:
    """One RecBole model with its data and trainer."""

    def __init__(
        self, model: str, settings: dict[str, Any], folder: Path, seed: int, device: str
    ) -> None:
        """Follow `recbole.quick_start.run_recbole` up to the training.

        Args:
            model: RecBole's name.
            settings: hyper-parameters by RecBole's names.
            folder: where `write_atomic` wrote; also takes what RecBole writes.
            seed: RecBole's `seed`.
            device: torch device.
        """
        from recbole.data import create_dataset, data_preparation
        from recbole.utils import get_model, get_trainer, init_seed

        given = settings | _conditions(folder, seed)
        config = _mended()(model=model, dataset=_NAME, config_dict=given)
        config["device"] = torch.device(device)
        with contextlib.chdir(folder):
            init_seed(seed, config["reproducibility"])
            dataset = create_dataset(config)
            self._train, self._valid, self._test = data_preparation(config, dataset)
            init_seed(seed, config["reproducibility"])
            self.module: torch.nn.Module = get_model(model)(config, self._train._dataset)
            self.module.to(device)
            self._trainer = get_trainer(config["MODEL_TYPE"], model)(config, self.module)
        self._trainer.eval_collector.data_collect(self._train)
        self._epoch = 0

    def ids(self, field: str, tokens: list[str]) -> torch.Tensor:
        """RecBole's internal ids of raw ids: int64 (n,)."""
        return torch.as_tensor(self._train._dataset.token2id(field, np.asarray(tokens)))

    def train_epoch(self) -> None:
        """One epoch by RecBole's trainer."""
        self._trainer._train_epoch(self._train, self._epoch, show_progress=False)
        self._epoch += 1

    def validate(self) -> float:
        """NDCG@10 on the validation part by RecBole's trainer: full ranking."""
        return float(self._trainer._valid_epoch(self._valid, show_progress=False)[0])

    def test(self) -> float:
        """NDCG@10 on the test part: full ranking."""
        result = self._trainer.evaluate(self._test, load_best_model=False, show_progress=False)
        return float(result["ndcg@10"])
