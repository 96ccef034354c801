"""A knowledge pack of the profiles that a run left behind."""

from datetime import UTC, datetime
from pathlib import Path

from models.config import Side
from models.errors import BadInput
from models.profiles.card import Card
from tasks.config.prompt_file import SECTIONS
from tasks.embeddings.packed_vectors import pack_vectors
from tasks.inspection.current_profiles import Configured, written
from tasks.profiles import knowledge_pack
from tasks.profiles.request import prompt_hash


def export(configured: Configured, folder: Path, side: Side, author: str, licence: str) -> Card:
    """Add one side's profiles to the pack in `folder`, with what the configuration says of them.

    Raises:
        BadInput: for profiles that nobody wrote from a prompt, and those that have seen held-out
            interactions or may have.
    """
    section = SECTIONS[side]
    config = configured.pipeline.profiles_of(side)
    if not config.has_prompt:
        raise BadInput(
            f"{configured.path}: {section}.provider is {config.provider}, so no LLM answered a "
            "prompt. Export a configuration with provider openai"
        )
    known = written(configured, side)
    if known.provenance not in ("none seen", "train-only"):
        raise BadInput(
            f"{configured.path}: the provenance of these profiles is {known.provenance}. Export "
            "profiles that have seen training interactions only"
        )
    dataset, split = configured.pipeline.dataset, configured.pipeline.split
    facts = {
        "name": folder.resolve().name,
        "dataset": dataset.name,
        "author": author,
        "written": datetime.now(UTC).date().isoformat(),
        "license": licence,
        "split": f"{split.strategy}, ratios {', '.join(map(str, split.ratios))}, seed {split.seed}",
    }
    told = {
        "prompt": Path(config.prompt).stem,
        "prompt_sha256": prompt_hash(known.request.prompt.content),
        "sees": "nothing" if known.provenance == "none seen" else "training history",
        "history": knowledge_pack.shown_history(config),
    }
    card = knowledge_pack.export(folder, known.table, side, facts, told)
    return pack_vectors(folder, configured.pipeline.embeddings_of(side)) or card
