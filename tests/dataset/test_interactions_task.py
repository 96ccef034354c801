"""Reading atomic files: what ships with RecBole, and what is wrong with a file."""

import pytest

from models.config import Dataset
from models.errors import BadInput
from tasks.dataset.interactions_task import interactions
from tasks.dataset.source_files import raw_files
from tasks.storage.artifacts import read_parquet

HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"

pytestmark = pytest.mark.usefixtures("data_dir", "no_run_logger")


def read(folder, inter, item=None):
    (folder / "toy.inter").write_text(inter)
    if item is not None:
        (folder / "toy.item").write_text(item)
    config = Dataset(name="toy", path=str(folder), title="name", year=None, genres=None)
    return interactions.fn(config, raw_files(config))


def test_movielens_ships_with_recbole():
    data = interactions.fn(Dataset(), raw_files(Dataset()))
    assert (data.interactions.rows, data.items.rows, data.users.rows) == (100_000, 1682, 943)
    assert (data.ingestion.read, data.ingestion.kept) == (100_000, 100_000)
    toy_story = next(row for row in read_parquet(data.items).to_pylist() if row["item_id"] == "1")
    assert toy_story["title"] == "Toy Story"
    assert toy_story["year"] == 1995
    assert toy_story["genres"] == ["Animation", "Children's", "Comedy"]


def test_repeated_pairs_keep_the_newest_and_ids_stay_text(tmp_path):
    data = read(tmp_path, HEADER + "007\t1\t2\t10\n007\t1\t5\t30\n007\t1\t1\t20\n7\t1\t4\t5\n")
    rows = read_parquet(data.interactions).to_pylist()
    assert [(r["user_id"], r["rating"], r["timestamp"]) for r in rows] == [
        ("007", 5.0, 30),
        ("7", 4.0, 5),
    ]


def test_items_on_either_side_only_are_in_the_catalogue(tmp_path):
    data = read(
        tmp_path, HEADER + "u\ta\t1\t1\nu\tb\t1\t2\n", "item_id:token\tname:token_seq\nb\tB\nc\tC\n"
    )
    titles = {row["item_id"]: row["title"] for row in read_parquet(data.items).to_pylist()}
    assert titles == {"a": None, "b": "B", "c": "C"}


@pytest.mark.parametrize(
    ("inter", "message"),
    [
        (HEADER, "toy.inter: no interactions are left of 0 rows"),
        (HEADER + "u\t\t1\t1\n", "toy.inter, row 2: item_id is empty"),
        (HEADER + "u\ta\tgood\t1\n", "toy.inter, row 2: rating is not a number"),
        (HEADER + "u\ta\t1\n", "toy.inter, row 2: 3 values instead of 4"),
        ("user_id:token\titem_id:token\n", "no column rating, timestamp.*it has user_id, item_id"),
    ],
)
def test_bad_files_are_named_with_the_place(tmp_path, inter, message):
    with pytest.raises(BadInput, match=message):
        read(tmp_path, inter)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(BadInput, match=r"ml-1m does not ship .* Set dataset\.path"):
        raw_files(Dataset(name="ml-1m"))
    with pytest.raises(BadInput, match=r"toy\.inter does not exist. Set dataset\.path"):
        raw_files(Dataset(name="toy", path=str(tmp_path)))


USERS = "user_id:token\tage:token\tjob:token\n007\t24\twriter\n8\t\tartist\n7\t53\tartist\n"


def people(folder, *fields, users=USERS):
    """The hand-off for a data set with a user file of which `fields` are asked for."""
    (folder / "toy.inter").write_text(HEADER + "007\t1\t2\t10\n7\t1\t4\t5\n")
    (folder / "toy.user").write_text(users)
    config = Dataset(name="toy", path=str(folder))
    return interactions.fn(config, raw_files(config, fields), fields)


def test_user_fields_are_read_only_when_asked_for(tmp_path, data_dir):
    plain = people(tmp_path)
    assert plain.demographics is None
    files = [path for path in data_dir.rglob("*") if path.is_file()]
    assert files
    assert not any(b"writer" in path.read_bytes() for path in files)
    asked = people(tmp_path, "age")
    assert read_parquet(asked.demographics).to_pylist() == [
        {"user_id": "007", "age": "24"},
        {"user_id": "7", "age": "53"},
        {"user_id": "8", "age": None},
    ]
    # What trainings are given stays the same, so that none is repeated.
    assert asked.model_copy(update={"demographics": None}) == plain


def test_columns_of_features_are_words_of_items_and_users(tmp_path):
    (tmp_path / "items.csv").write_text(
        "item_id,title,maker,tags\n2,Two, Ann ,a | |b\n4,Four,,\n9,Nine,Bo,b\n2,Again,Cy,c\n"
    )
    (tmp_path / "log.csv").write_text("user_id,item_id\n007,2\n7,4\n")
    (tmp_path / "users.csv").write_text("user_id,age,city\n7,53,Ulm\n007,,\n8,9,Bonn\n")
    config = Dataset(
        interactions=str(tmp_path / "log.csv"),
        items=str(tmp_path / "items.csv"),
        users=str(tmp_path / "users.csv"),
        bad_rows="quarantine",
        columns={
            "rating": None,
            "timestamp": None,
            "title": "title",
            "item_features": ["maker", "tags"],
            "user_features": ["age", "city"],
        },
    )
    data = interactions.fn(config, raw_files(config))
    assert {row["item_id"]: row["features"] for row in read_parquet(data.items).to_pylist()} == {
        "2": ["maker: Ann", "tags: a", "tags: b"],
        "4": None,
        "9": ["maker: Bo", "tags: b"],
    }
    assert {row["user_id"]: row["features"] for row in read_parquet(data.users).to_pylist()} == {
        "007": None,
        "7": ["age: 53", "city: Ulm"],
    }
    assert data.demographics is None
    missing = config.model_copy(
        update={"columns": config.columns.model_copy(update={"item_features": ("label",)})}
    )
    with pytest.raises(
        BadInput, match=r"items\.csv: no column label; it has item_id, title, maker"
    ):
        interactions.fn(missing, raw_files(missing))


def test_user_fields_that_are_not_there(tmp_path):
    with pytest.raises(BadInput, match=r"toy\.user: no column agee; it has user_id, age, job\. "):
        people(tmp_path, "agee")
    with pytest.raises(BadInput, match=r"demographics: user_id is the user's id\. Remove it"):
        people(tmp_path, "age", "user_id")
    with pytest.raises(BadInput, match=r"toy\.user, row 5: user_id is empty\. Fill it in"):
        people(tmp_path, "age", users=USERS + "\t1\tx\n")
    with pytest.raises(BadInput, match=r"toy\.user: 1 user_id occur more than once"):
        people(tmp_path, "age", users=USERS + "7\t1\tx\n")
    (tmp_path / "toy.user").unlink()
    config = Dataset(name="toy", path=str(tmp_path))
    with pytest.raises(
        BadInput, match=r"demographics and .* ask for age, but .* no user file\. Add toy\.user"
    ):
        raw_files(config, ("age",))
