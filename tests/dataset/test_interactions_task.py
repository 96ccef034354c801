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
        BadInput, match=r"demographics: it asks for age, but .* no user file\. Add toy\.user"
    ):
        raw_files(config, ("age",))
