"""KAR, the comparator: profiles as extra features of a context-aware model.

KAR (Xi et al. 2023, arXiv 2306.10933, sections 3.3 and 3.4) embeds a language model's reasoning
about a user and its knowledge of an item, passes both through a hybrid-expert adaptor and gives
the results to the model as two more feature fields. Unlike transfer it changes the architecture
and needs the embeddings whenever it predicts.
"""

from typing import Any

import torch
from torch import Tensor, nn

from models.config import Kar
from models.errors import BadInput
from models.schemas import ITEM, USER


class HybridExperts(nn.Module):
    """Experts shared by both kinds of knowledge, and each kind's own, mixed by a gate per kind."""

    def __init__(self, width: int, out: int, settings: Kar) -> None:
        """Make the experts for embeddings of `width`; `out` is the model's embedding size."""
        super().__init__()
        shared, own = settings.shared_experts, settings.own_experts

        def experts(n: int) -> nn.ModuleList:
            return nn.ModuleList(
                nn.Sequential(
                    nn.Linear(width, settings.hidden), nn.ReLU(), nn.Linear(settings.hidden, out)
                )
                for _ in range(n)
            )

        self.shared = experts(shared)
        self.own = nn.ModuleDict({USER: experts(own), ITEM: experts(own)})
        self.gates = nn.ModuleDict({key: nn.Linear(width, shared + own) for key in (USER, ITEM)})

    def forward(self, key: str, embeddings: Tensor) -> Tensor:
        """Mix the experts' outputs for embeddings of `key`: float32 (n, width) to (n, out)."""
        weights = torch.softmax(self.gates[key](embeddings), dim=1)
        own: Any = self.own[key]
        opinions = torch.stack([expert(embeddings) for expert in [*self.shared, *own]], dim=1)
        return torch.einsum("ne,neo->no", weights, opinions)


def with_knowledge(
    model: type[nn.Module], users: Tensor, items: Tensor, settings: Kar
) -> type[nn.Module]:
    """Derive a class from `model` with two more feature fields.

    RecBole's context-aware models size their layers by `num_feature_field` after their base class
    has counted the fields, so the new base class counts two more. `model` must join its fields by
    `concat_embed_input_fields`. Embeddings are float32 (n, width) by internal ids, and rows without
    a profile are zero.

    Raises:
        BadInput: if users' and items' embeddings differ in width: experts are shared.
    """
    if users.shape[1] != items.shape[1]:
        raise BadInput(
            f"the arm kar shares experts between users and items, but their embeddings are "
            f"{users.shape[1]} and {items.shape[1]} wide. Embed both with one text model."
        )
    base: Any = model.__mro__[1]

    class Extended(base):  # type: ignore[misc]
        """The base class of RecBole's context-aware models with the adaptor's two fields."""

        def __init__(self, config: Any, dataset: Any) -> None:
            super().__init__(config, dataset)
            self.num_feature_field += 2
            self.experts = HybridExperts(users.shape[1], self.embedding_size, settings)
            for name, value in (("known_users", users), ("known_items", items)):
                self.register_buffer(name, value, persistent=False)

        def concat_embed_input_fields(self, interaction: Any) -> Tensor:
            """The fields' embeddings: float32 (n, fields + 2, embedding_size)."""
            fields: Tensor = super().concat_embed_input_fields(interaction)
            user_field = self.experts(USER, self.known_users[interaction[USER]])
            item_field = self.experts(ITEM, self.known_items[interaction[ITEM]])
            return torch.cat((fields, user_field[:, None], item_field[:, None]), dim=1)

    return type(model.__name__, (model, Extended), {})
