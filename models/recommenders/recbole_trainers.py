"""What RecBole's special trainers do around an epoch, for the models that have one.

Everything else trains in one pass over its batches (recbole/trainer/trainer.py, `Trainer`).
"""

import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from models.arrow import Ints, Singles


def seed_all(seed: int) -> None:
    """Seed every source of random numbers that RecBole's models draw from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


Pass = list[nn.Parameter]
"""Parameters that a pass over the batches must not move."""


def passes(name: str, module: Any, settings: dict[str, Any], epoch: int) -> Iterator[Pass]:
    """The passes over the batches that make one epoch of `name`, in order."""
    if name == "RecVAE":
        yield from _alternate(module, settings)
        return
    if name == "NCL" and epoch % settings["m_step"] == 0:
        module.e_step()
    yield []


def _alternate(module: Any, settings: dict[str, Any]) -> Iterator[Pass]:
    """RecVAE trains its encoder, copies it into the prior, then trains its decoder."""
    parameters = dict(module.named_parameters())
    for part, n_passes in (
        ("encoder", settings["n_enc_epochs"]),
        ("decoder", settings["n_dec_epochs"]),
    ):
        _set_recvae_loss(module, part)
        held_still = [p for name, p in parameters.items() if not name.startswith(f"{part}.")]
        for _ in range(n_passes):
            yield held_still
        if part == "encoder":
            module.update_prior()


def _set_recvae_loss(module: Any, part: str) -> None:
    module.calculate_loss = partial(
        type(module).calculate_loss, module, encoder_flag=part == "encoder"
    )


def prepare(name: str, module: Any, seed: int, train_items: Ints) -> None:
    """Give a fresh module what RecBole's trainer, or a package that is not needed, would."""
    if name == "Pop":
        counts = np.bincount(train_items, minlength=module.n_items)
        module.item_cnt = torch.as_tensor(counts, device=module.device)[:, None]
        module.max_cnt = module.item_cnt.max()
    if name == "DGCF":
        # It draws as many users as items, without a look at how many there are.
        module.cor_batch_size = min(module.cor_batch_size, module.n_users, module.n_items)
    if name == "RecVAE":
        _set_recvae_loss(module, "encoder")
    if name == "NCL":
        module.run_kmeans = lambda vectors: _kmeans(vectors, module.k, seed, module.device)
        module.e_step()


def _kmeans(
    vectors: Singles, k: int, seed: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit centroids float32 (k, width) and each row's cluster int64 (n,).

    RecBole asks faiss on a GPU for it, which few machines have.
    """
    from sklearn.cluster import KMeans

    clusters = min(k, len(vectors))
    found = KMeans(clusters, n_init=1, max_iter=25, random_state=seed).fit(vectors)
    centroids = torch.as_tensor(found.cluster_centers_, dtype=torch.float32, device=device)
    labels = torch.as_tensor(found.labels_, dtype=torch.long, device=device)
    return torch.nn.functional.normalize(centroids, dim=1), labels
