"""RecBole's arithmetic at less cost: the same results up to rounding, or the same distribution.

Each replacement is put on a fresh module by `cheapen` and leaves parameters, taps and state alone.
"""

import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from models.recommenders import simplex_loss

_DRAWS = 1 << 16
"""A dropout draw has 16 bits, so that the rate is met to 1/65536."""


def cheapen(name: str, module: Any) -> None:
    """Replace what of `module` (RecBole's model `name`) costs more than it has to."""
    if name == "SimpleX" and simplex_loss.applies_to(module):
        module.calculate_loss = partial(simplex_loss.loss, module)
    if name == "NeuMF":
        layers = module.mlp_layers.mlp_layers
        for place, layer in enumerate(layers):
            if isinstance(layer, nn.Dropout):
                layers[place] = Dropout(layer.p)
    if name == "LightGCN":
        # Compressed rows multiply three times as fast as the coordinates that RecBole keeps.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls the layout's support a beta
            module.norm_adj_matrix = module.norm_adj_matrix.coalesce().to_sparse_csr()


class Dropout(nn.Dropout):
    """Dropout that draws four masks from each 64-bit random number; torch's CPU draws one."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Hidden entries are zero, the rest are scaled up, as in `nn.Dropout`."""
        if not self.training or self.p == 0 or input.device.type != "cpu":
            return super().forward(input)
        n = input.numel()
        draws = torch.empty(-(-n // 4), dtype=torch.int64, device=input.device)
        draws.random_(torch.iinfo(torch.int64).min, None)
        kept = draws.view(torch.int16)[:n].view(input.shape) >= round(self.p * _DRAWS) - _DRAWS // 2
        return input * kept.to(input.dtype).mul_(1 / (1 - self.p))
