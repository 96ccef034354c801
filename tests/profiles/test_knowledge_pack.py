"""Knowledge packs: an LLM's texts with a card, checked against prompt, split and catalogue."""

import json

import pyarrow as pa
import pytest
import yaml

from models.config import Dataset, ItemProfiles, Pipeline, Profiles, Split
from models.errors import BadInput
from models.profiles.provenance import record
from tasks.config.prompt_file import parse_prompt
from tasks.dataset.interactions_task import interactions
from tasks.dataset.source_files import raw_files
from tasks.dataset.split_task import split
from tasks.profiles.knowledge_pack import CARD, export, given_texts, read_card, require_pack
from tasks.profiles.profiles_task import profiles
from tasks.profiles.request import prompt_hash
from tasks.storage.artifacts import PROJECT_ROOT, read_parquet, write_parquet

pytestmark = pytest.mark.usefixtures("data_dir", "no_run_logger")

FACTS = {
    "name": "toy",
    "dataset": "toy",
    "author": "a model",
    "written": "November 2026",
    "license": "MIT",
    "split": "random, seed 7",
}
TRAIN = pa.table(
    {
        "user_id": ["a", "a", "b", "c"],
        "item_id": ["1", "2", "1", "3"],
        "rating": pa.array([5.0, 1.0, 4.0, 3.0], pa.float32()),
        "timestamp": pa.array([1, 2, 3, 4], pa.int64()),
    }
)
PROMPT = parse_prompt((PROJECT_ROOT / "prompts" / "user-movies.j2").read_text(), "user-movies")[0]


def told(sees="training history", prompt=PROMPT):
    return {
        "prompt": "user-movies",
        "prompt_sha256": prompt_hash(prompt.content),
        "sees": sees,
    }


def texts(train=TRAIN):
    seen = record(train)
    return seen.append_column("text", pa.array([f"Taste of {user}." for user in "abc"]))


@pytest.fixture
def pack(tmp_path):
    folder = tmp_path / "toy"
    export(folder, texts(), "users", FACTS, told())
    return folder


def written(folder, train=TRAIN, prompt=PROMPT, **settings):
    config = Profiles(provider="pack", path=str(folder), **settings)
    given, card = given_texts(config, "users")
    items = pa.table({"item_id": ["1", "2", "3"]})
    handles = write_parquet("splits", train), write_parquet("interactions", items)
    return profiles.fn(config, prompt, *handles, given, "users", None, None, card)


def test_texts_of_the_recorded_histories_are_taken_over(pack):
    made = written(pack)
    assert (made.source, made.provenance, made.missing) == ("llm-pack:toy", "train-only", 0)
    assert made.llm_model == "a model"
    assert made.cost_usd == 0
    assert read_parquet(made.profiles)["text"][1].as_py() == "Taste of b."


def test_a_user_whose_history_differs_counts_as_missing_with_the_reason(pack):
    other = TRAIN.slice(0, 3)
    changed = pa.concat_tables([other, TRAIN.slice(3).set_column(1, "item_id", pa.array(["2"]))])
    made = written(pack, changed, max_missing=0.5)
    rows = read_parquet(made.profiles).to_pylist()
    assert [row["missing_reason"] for row in rows] == [None, None, "written from another history"]
    assert (made.missing, made.provenance) == (1, "train-only")
    with pytest.raises(
        BadInput, match=r"1 of 3 users .* 1 texts were written from another .*seed 7"
    ):
        written(pack, changed)


def test_an_edited_prompt_is_refused_with_the_ways_to_go_on(pack):
    edited = PROMPT.model_copy(update={"text": PROMPT.text.replace("five", "six")})
    with pytest.raises(
        BadInput, match=r"profiles.prompt: user-movies .* not what the texts .* openai"
    ):
        written(pack, prompt=edited)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / CARD).unlink(), "it has no card.yaml. .*ml-100k"),
        (lambda folder: (folder / CARD).write_text("name: [1"), "not valid YAML"),
        (lambda folder: (folder / CARD).write_text("name: toy"), "dataset is required"),
        (lambda folder: (folder / "users.parquet").unlink(), "users.parquet is missing"),
        (lambda folder: (folder / "users.parquet").write_bytes(b"x"), "its sha256 differs"),
    ],
)
def test_a_damaged_pack_is_one_sentence(pack, damage, message):
    damage(pack)
    with pytest.raises(BadInput, match=message):
        written(pack)


def test_a_pack_of_other_users_or_without_the_side_is_refused(pack, tmp_path):
    strangers = texts().set_column(0, "user_id", pa.array(["x", "y", "z"]))
    export(tmp_path / "other", strangers, "users", FACTS, told())
    with pytest.raises(BadInput, match="3 of 3 user ids are not in the training part"):
        written(tmp_path / "other")
    with pytest.raises(BadInput, match="the pack toy has no texts about items"):
        given_texts(ItemProfiles(provider="pack", path=str(pack)), "items")


def test_an_export_keeps_the_other_side_and_says_what_it_holds(pack):
    items = pa.table({"item_id": ["1", "2"], "text": ["One.", None]})
    items = items.append_column("history_sha256", pa.nulls(2, pa.string()))
    items = items.append_column("history_count", pa.nulls(2, pa.int32()))
    card = export(pack, items, "items", {}, told("nothing"))
    assert card.users is not None
    assert card.items is not None
    assert read_card(pack, "").model_dump() == card.model_dump()
    assert set(yaml.safe_load((pack / CARD).read_text())) >= {"author", "users", "items"}
    assert json.dumps(FACTS["author"]).strip('"') in (pack / CARD).read_text()


def test_the_shipped_pack_belongs_to_the_shipped_split():
    raw = raw_files(Dataset())
    data = interactions.fn(Dataset(), raw)
    train = split.fn(Split(), data.interactions).train
    for side, kind, prompt in (
        ("users", Profiles, "user-movies"),
        ("items", ItemProfiles, "item-movies"),
    ):
        config = kind(provider="pack", path="ml-100k")
        given, card = given_texts(config, side)
        file = PROJECT_ROOT / "prompts" / f"{prompt}.j2"
        template = parse_prompt(file.read_text(), prompt, side)[0]
        made = profiles.fn(config, template, train, data.items, given, side, None, None, card)
        assert made.missing == 0
        assert made.provenance == ("train-only" if side == "users" else "none seen")
        table = read_parquet(made.profiles)
        assert table.num_rows == (943 if side == "users" else 1682), "items: the whole catalogue"


def pipeline(folder, **settings):
    return Pipeline(
        experiment="toy",
        dataset={"name": settings.pop("dataset", "toy")},
        profiles={"provider": "pack", "path": str(folder), **settings},
        models={"BPR": {}},
    )


def test_before_any_stage_a_pack_is_refused_that_does_not_fit(pack, tmp_path):
    require_pack(pipeline(pack))
    with pytest.raises(BadInput, match=r"profiles.path: .* data set toy, but dataset.name is mine"):
        require_pack(pipeline(pack, dataset="mine"))
    edited = tmp_path / "mine.j2"
    edited.write_text(PROMPT.text.replace("five", "six"))
    with pytest.raises(BadInput, match=r"profiles.prompt: .*mine.j2 .* offline writes texts"):
        require_pack(pipeline(pack, prompt=str(edited)))
    with pytest.raises(BadInput, match=r"profiles.history: {'limit': 9} is not what the texts"):
        require_pack(pipeline(pack, history={"limit": 9}))
    (pack / "users.parquet").write_bytes(b"x")
    with pytest.raises(BadInput, match="its sha256 differs"):
        require_pack(pipeline(pack))
