"""Stage *profiles*: one text per user or item, from statistics, an LLM or a file, and its cost."""

from collections.abc import Mapping

from models.config import Profiles, Side
from models.errors import BadInput
from models.profiles.card import Card
from models.profiles.prompt_templates import Template
from tasks.execution.stage import stage
from tasks.execution.worker_pool import require_workers
from tasks.profiles import knowledge_pack, llm_writer, offline_writer, profile_import
from tasks.profiles.outputs import Previous, Profiled
from tasks.profiles.request import Provider, Request
from tasks.profiles.reuse import write_changed
from tasks.storage.artifacts import Handle


def _refuse(_: Request) -> Profiled:
    """The stage *pooling* describes these users, from the items' embeddings."""
    raise BadInput(
        "profiles.provider items: users are described by their items, so they have no profiles of "
        "their own. Show the items' profiles with --side items"
    )


PROVIDERS: Mapping[str, Provider] = {
    "offline": Provider(offline_writer.write, offline_writer.basis),
    "openai": Provider(llm_writer.write, llm_writer.basis),
    "openai-batch": Provider(llm_writer.write, llm_writer.basis),
    "import": Provider(profile_import.write),
    "pack": Provider(knowledge_pack.write),
    "items": Provider(_refuse),
}
"""Who writes profiles, by `profiles.provider`. A new provider is one file and one row."""


@stage("profiles", version=7)
def profiles(
    config: Profiles,
    prompt: Template | str,
    train: Handle,
    items: Handle,
    imported: Handle | None = None,
    side: Side = "users",
    demographics: Handle | None = None,
    previous: Previous | None = None,
    card: Card | None = None,
) -> Profiled:
    """Write a profile for every user (item) of the training interactions.

    `train`, schema `INTERACTIONS`, is what profiles are written from, which `config.interactions`
    may make more than the training part; `items` has the schema `ITEMS`. `imported` and `card` are
    from `given_texts`, `demographics` has what `history.demographics` names, and `previous` an
    earlier run's profiles of users, for those who have hardly changed.

    Raises:
        BadInput: as the provider's `write`.
    """
    require_workers()  # a question that is paid for must not end in a run that cannot go on
    template = Template(text=prompt) if isinstance(prompt, str) else prompt
    request = Request(config, template, train, items, imported, side, demographics, card=card)
    provider = PROVIDERS[config.provider]
    basis = provider.basis(request) if side == "users" else None
    if basis is None:
        return provider.write(request)
    return write_changed(provider, request, basis, previous)
