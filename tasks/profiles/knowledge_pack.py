"""The provider `pack`: profiles that an LLM wrote once, kept in a folder with a card, and shared.

    data/knowledge/NAME/
        card.yaml        who wrote the texts, when, from what, under which licence
        users.parquet    user_id, text, history_sha256, history_count
        items.parquet    item_id, text

A text counts only for a user with exactly the training history that it was written from, and only
for the prompt that the card records. `export` makes a pack of any run's profiles.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from models.arrow import distinct
from models.config import SIDES, Pipeline, Profiles, Side
from models.errors import BadInput
from models.profiles.card import Card, SideCard
from models.profiles.prompt_templates import Template
from models.profiles.provenance import has_record, record, record_of_items
from models.profiles.user_history import select
from models.schemas import HISTORY_COUNT, HISTORY_SHA256, ITEM, KEYS, TEXT, noun
from tasks.config.prompt_file import SECTIONS, prompt_of
from tasks.config.yaml_settings import read_settings, validate
from tasks.profiles.outputs import Profiled, Provenance
from tasks.profiles.profile_import import take_over
from tasks.profiles.request import Request, prompt_hash
from tasks.storage.artifacts import PROJECT_ROOT, Handle, file_sha256, read_parquet, write_file
from tasks.storage.imported_files import profile_file, read_profiles

PACKS = PROJECT_ROOT / "data" / "knowledge"
CARD = "card.yaml"
OTHER_HISTORY = "written from another history"


def pack_folder(config: Profiles) -> Path:
    """Return the folder that `path` names: a pack of `data/knowledge/`, or any other folder."""
    assert config.path is not None
    known = PACKS / config.path
    return known if known.is_dir() else Path(config.path).expanduser()


def read_card(folder: Path, key: str) -> Card:
    """Read a pack's card; BadInput, naming the setting `key`, if missing or damaged."""
    if not (folder / CARD).is_file():
        packs = sorted(path.parent.name for path in PACKS.glob(f"*/{CARD}"))
        raise BadInput(
            f"{key}: {folder} is no knowledge pack, it has no {CARD}. Name a folder with one, or "
            f"one of data/knowledge/: {', '.join(packs)}."
        )
    return validate(Card, read_settings(folder / CARD, "card"), folder / CARD)


def given_texts(config: Profiles, side: Side) -> tuple[Handle | None, Card | None]:
    """Write texts that a file or a pack holds as a raw artifact, and read the pack's card.

    Raises:
        BadInput: as `profile_file`; for a damaged card or file, and a pack without this side.
    """
    if config.provider != "pack":
        return profile_file(config), None
    section = SECTIONS[side]
    folder = pack_folder(config)
    card = read_card(folder, f"{section}.path")
    told, file = card.side(side), folder / f"{side}.parquet"
    if told is None:
        raise BadInput(
            f"{section}.path: the pack {card.name} has no texts about {side}. Set "
            f"{section}.provider to another."
        )
    texts = write_file("raw", file.suffix, file) if file.is_file() else None
    if texts is None or texts.sha256 != told.sha256:
        raise BadInput(
            f"{section}.path: {file} is missing, or is not the file that {CARD} describes (its "
            "sha256 differs). Copy the pack again."
        )
    return texts, card


def write(request: Request) -> Profiled:
    """Take the texts over for every subject whose history is the recorded one.

    Raises:
        BadInput: where the texts answer another prompt, for unknown ids, and for too many subjects
            without text.
    """
    config, side, card, file = request.config, request.side, request.card, request.imported
    assert card is not None
    assert file is not None
    section = SECTIONS[side]
    source = f"{section}.path {config.path}"
    told = card.side(side)
    assert told is not None
    _require_prompt(config, side, request.prompt, card, told)
    texts = read_profiles(file, config.columns, source, side)
    train = read_parquet(request.train)
    refused, hint = None, ""
    if told.sees == "training history":
        refused = pc.if_else(_same_history(request, texts, train), None, OTHER_HISTORY)
        others = len(refused) - refused.null_count
        if others:
            hint = f" {others} texts were {OTHER_HISTORY} than this run's training part has."
        if others and card.split:
            hint += f" The pack belongs to this split: {card.split}."
    known = distinct(read_parquet(request.items)[ITEM]) if side == "items" else None
    provenance: Provenance = "none seen" if told.sees == "nothing" else "train-only"
    done = take_over(request, texts, source, refused, known, hint, provenance)
    return done.model_copy(
        update={
            "source": f"llm-pack:{card.name}",
            "llm_model": card.author,
            "prompt_hash": told.prompt_sha256,
        }
    )


def require_pack(pipeline: Pipeline) -> None:
    """Check the packs of a configuration before any stage runs, as far as that needs no data.

    Raises:
        BadInput: as `given_texts`, for a pack of another data set, and for one whose texts answer
            another prompt.
    """
    for side in SIDES:
        config, section = pipeline.profiles_of(side), SECTIONS[side]
        if config.provider != "pack":
            continue
        _, card = given_texts(config, side)
        assert card is not None
        told = card.side(side)
        assert told is not None
        if card.dataset != pipeline.dataset.name:
            raise BadInput(
                f"{section}.path: the texts of the pack {card.name} are about the data set "
                f"{card.dataset}, but dataset.name is {pipeline.dataset.name}. Name a pack of this "
                f"data set; or, if its ids are those of {card.dataset}, set dataset.name to that."
            )
        _require_prompt(config, side, prompt_of(pipeline, side), card, told)


def _require_prompt(
    config: Profiles, side: Side, prompt: Template, card: Card, told: SideCard
) -> None:
    """Refuse a prompt, or a choice of what it shows, that the texts do not answer."""
    section, found, shown = SECTIONS[side], prompt_hash(prompt.content), shown_history(config)
    own = f"history: {shown or 'the default'}"
    answered = f"{told.prompt}, {told.prompt_sha256}, history {told.history or 'the default'}"
    if found != told.prompt_sha256:
        own = f"prompt: {config.prompt} ({found})"
    elif told.sees == "nothing" or shown == told.history:
        return
    raise BadInput(
        f"{section}.{own} is not what the texts of the pack {card.name} answer ({answered}). New "
        f"prompts need an LLM: set {section}.path to null and {section}.provider to openai, with "
        f"a key or with {section}.llm.base_url of a local LLM; offline writes texts without one. "
        "Or take the change back."
    )


def shown_history(config: Profiles) -> dict[str, Any]:
    """List what of a history the prompts show, as far as it is not the default."""
    return config.history.model_dump(mode="json", exclude_defaults=True)


def _same_history(request: Request, texts: pa.Table, train: pa.Table) -> pa.ChunkedArray:
    """Tell which texts saw exactly what the training part has of their subject: bool (rows,)."""
    if not {HISTORY_SHA256, HISTORY_COUNT} <= set(texts.column_names):
        return pa.chunked_array([pa.array([False] * texts.num_rows, pa.bool_())])
    if request.side == "items":
        return has_record(texts, record_of_items(train))
    same = has_record(texts, record(train))
    if pc.all(same).as_py():
        return same
    return pc.or_(same, has_record(texts, record(select(train, request.config.history))))


def export(
    folder: Path, profiles: pa.Table, side: Side, facts: dict[str, Any], told: dict[str, Any]
) -> Card:
    """Add the texts of one side, `profiles_schema`, to a pack, which is made if there is none.

    `facts` is what the card says of the whole pack; an existing card keeps what is not in it.
    `told` is what it says of this side, but for the digest. Rows without text are left out.

    Raises:
        BadInput: for profiles without any text, and a damaged card.
    """
    key = KEYS[side]
    columns = [key, TEXT, HISTORY_SHA256, HISTORY_COUNT]
    texts = profiles.filter(pc.is_valid(profiles[TEXT])).select(columns)
    if not texts.num_rows:
        raise BadInput(f"{folder}: no {noun(key)} has a text yet. Run the configuration first.")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{side}.parquet"
    pq.write_table(texts, file, compression="zstd", compression_level=19)
    return write_card(folder, {**facts, side: {**told, "sha256": file_sha256(file)}})


def write_card(folder: Path, facts: dict[str, Any]) -> Card:
    """Write a pack's card, keeping what is not in `facts`; BadInput if it was damaged."""
    before = read_card(folder, str(folder)).model_dump() if (folder / CARD).is_file() else {}
    card = validate(Card, {**before, **facts}, folder / CARD)
    content = card.model_dump(mode="json", exclude_none=True)
    (folder / CARD).write_text(
        yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100), encoding="utf-8"
    )
    return card
