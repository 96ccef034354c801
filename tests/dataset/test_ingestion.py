"""A user's own data: formats, columns, filters, dirty rows; and that every row is accounted for."""

import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from models.config import Dataset
from models.errors import BadInput
from tasks.dataset.source_files import raw_files
from tasks.storage.artifacts import read_parquet
from tests.support.dataset_files import HEADER, catalogue, dropped, load, rows, write

pytestmark = pytest.mark.usefixtures("data_dir", "no_run_logger")


def csv(folder, body, first=HEADER, **settings):
    return load({"interactions": write(folder, "ratings.csv", first + body), **settings})


def test_content_decides_and_not_where_the_files_are():
    assert Dataset().digest() == Dataset(format="atomic").digest() == Dataset(path="/x").digest()
    assert Dataset(name="toy").digest() != Dataset().digest()
    assert Dataset(rating_from=4).digest() != Dataset().digest()


def test_columns_are_mapped_and_ids_stay_text(tmp_path):
    data = load(
        {
            "interactions": write(
                tmp_path, "log.csv", "when,who,stars,what,extra\n5,007,4.5,a,x\n6,7,3,a,y\n"
            ),
            "items": write(tmp_path, "things.csv", 'id,name,tags,by\na,"A, b",x; y,Ann\nc,C,,\n'),
            "columns": {
                "user": "who",
                "item": "what",
                "rating": "stars",
                "timestamp": "when",
                "item_file_item": "id",
                "title": "name",
                "genres": "tags",
                "text": ["by"],
            },
            "genre_separator": ";",
        }
    )
    assert rows(data) == [("007", "a", 4.5, 5), ("7", "a", 3.0, 6)]
    assert catalogue(data) == {"a": ("A, b – Ann", None, ["x", "y"]), "c": ("C", None, None)}


def test_without_a_header_columns_have_numbers(tmp_path):
    settings = {"header": False, "columns": {"user": 1, "item": 2, "rating": 3, "timestamp": None}}
    assert rows(csv(tmp_path, "u,a,5,9\n", "", **settings)) == [("u", "a", 5.0, None)]


@pytest.mark.parametrize("name", ["r.tsv", "r.parquet", "r.csv.gz", "r.dat"])
def test_every_format_gives_the_same_rows(tmp_path, name):
    table = pa.table({"user_id": ["007", "7"], "item_id": [3, 4], "rating": [1.0, 2.5]})
    table = table.append_column("timestamp", pa.array([10, 20]))
    lines = ["user_id,item_id,rating,timestamp", "007,3,1,10", "7,4,2.5,20"]
    text = "\n".join(lines) + "\n"
    settings = {"interactions": str(tmp_path / name)}
    if name.endswith("parquet"):
        pq.write_table(table, tmp_path / name)
    elif name.endswith("gz"):
        (tmp_path / name).write_bytes(gzip.compress(text.encode()))
    elif name.endswith("tsv"):
        write(tmp_path, name, text.replace(",", "\t"))
    else:
        write(tmp_path, name, text.replace(",", "::"))
        settings |= {"format": "csv", "delimiter": "::"}
    assert rows(load(settings)) == [("007", "3", 1.0, 10), ("7", "4", 2.5, 20)]


def test_parquet_times_are_times_and_its_odd_ids_are_refused(tmp_path):
    file = tmp_path / "r.parquet"
    when = pa.array([1_500_000_000_000], pa.timestamp("ms"))
    base = {"item_id": ["a"], "rating": [1]}
    pq.write_table(pa.table({"user_id": ["u"], **base, "timestamp": when}), file)
    assert rows(load({"interactions": str(file)})) == [("u", "a", 1.0, 1_500_000_000)]
    pq.write_table(pa.table({"user_id": [7.0], **base, "timestamp": when}), file)
    with pytest.raises(BadInput, match="column user_id holds double"):
        load({"interactions": str(file)})
    file.write_bytes(b"PAR1 no more")
    with pytest.raises(BadInput, match=r"r\.parquet: it cannot be read as Parquet"):
        load({"interactions": str(file)})


def test_the_same_bytes_in_another_format_are_another_input(tmp_path):
    content = HEADER + "u,a,1,1\n"
    keys = [
        list(raw_files(Dataset(interactions=write(tmp_path, name, content))))
        for name in ("r.csv", "r.tsv")
    ]
    assert keys == [["interactions.csv"], ["interactions.tsv"]]
    one, two = (Dataset(interactions=f"/{place}/r.csv").digest() for place in "ab")
    assert one == two


def test_filters_drop_and_count_in_their_order(tmp_path):
    body = (
        "u1,a,5,100\n"  # kept
        "u1,b,4,100\n"  # kept
        "u2,a,5,100\n"  # its newer rating is 2, so that it goes
        "u2,a,2,200\n"
        "u2,b,5,100\n"  # then u2 has one item only, and goes
        "u3,a,5,100\n"  # kept
        "u3,b,5,100\n"  # kept
        "u3,c,5,100\n"  # c has one user only, and goes
        "u4,a,5,99\n"  # before
        "u4,b,5,300\n"  # after
        "u5,a,,100\n"  # no rating
    )
    data = csv(
        tmp_path,
        body,
        since="1970-01-01T00:01:40",
        until="1970-01-01T00:05:00",
        rating_from=4,
        k_core={"users": 2, "items": 2},
    )
    assert [row[:2] for row in rows(data)] == [("u1", "a"), ("u1", "b"), ("u3", "a"), ("u3", "b")]
    assert dropped(data) == {
        ("since", "before 1970-01-01T00:01:40"): 1,
        ("until", "not before 1970-01-01T00:05:00"): 1,
        ("duplicates", "the same user and item again, newest kept"): 1,
        ("rating_from", "no rating"): 1,
        ("rating_from", "rating below 4"): 1,
        ("k_core", "users with fewer than 2 interactions, 2 rounds"): 1,
        ("k_core", "items with fewer than 2 interactions, 2 rounds"): 1,
    }
    assert data.ingestion.read == 11 == data.ingestion.kept + sum(dropped(data).values())
    assert set(catalogue(data)) == {"a", "b"}


def test_the_core_is_a_fixed_point(tmp_path):
    # A chain: dropping u1 takes a below 2, which takes u2 below 2, and so on to the end.
    chain = "u1,a,1,1\nu2,a,1,1\nu2,b,1,1\nu3,b,1,1\nu3,c,1,1\n"
    square = "x,p,1,1\nx,q,1,1\ny,p,1,1\ny,q,1,1\n"
    data = csv(tmp_path, chain + square, k_core={"users": 2, "items": 2})
    assert {row[0] for row in rows(data)} == {"x", "y"}
    with pytest.raises(BadInput, match=r"no interactions are left of 5 rows: 3 by k_core \(users"):
        csv(tmp_path, chain, k_core={"users": 2, "items": 2})


@pytest.mark.parametrize(
    ("policy", "kept"), [("newest", 2.0), ("oldest", 3.0), ("max-rating", 5.0)]
)
def test_repeated_pairs(tmp_path, policy, kept):
    body = "u,a,3,10\nu,a,5,20\nu,a,1,30\nu,a,2,30\nv,a,1,1\n"
    data = csv(tmp_path, body, duplicates=policy)
    assert [row[2] for row in rows(data)] == [kept, 1.0]
    assert data.ingestion.dropped[0].rows == 3


def test_repeated_pairs_can_be_refused(tmp_path):
    with pytest.raises(BadInput, match="row 4: user u and item a are in row 2 already"):
        csv(tmp_path, "u,a,3,10\nv,a,1,1\nu,a,5,20\n", duplicates="error")


BAD = {
    "nan": ("u,a,NaN,1", "rating is NaN or infinite"),
    "word": ("u,a,good,1", "rating is not a number"),
    "huge": ("u,a,1e39,1", "rating is too large"),
    "negative": ("u,a,1,-1", "timestamp is negative"),
    "milliseconds": ("u,a,1,1500000000000", "timestamp: milliseconds"),
    "no time": ("u,a,1,", "timestamp is empty"),
    "far": ("u,a,1,4102444800", "timestamp is after the year 2099"),
    "no user": (",a,1,1", "user_id is empty"),
    "blank item": ("u, ,1,1", "item_id is empty"),
    "space": ("u ,a,1,1", "user_id has white space around it"),
    "newline": ('u,"a\nb",1,1', "item_id holds control characters"),
    "tab": ("u,a\tb,1,1", "item_id holds control characters"),
    "zero byte": ("u,a\x00,1,1", "it holds control characters"),
    "long id": (f"u,{'a' * 70_000},1,1", "item_id is longer than 65536 bytes"),
    "nan time": ("u,a,1,nan", "timestamp is NaN or infinite"),
    "short": ("u,a,1", "3 values instead of 4"),
    "long": ("u,a,1,1,1", "5 values instead of 4"),
    "quote": ('u,"a"b,1,1', "quotes do not match"),
}


@pytest.mark.parametrize(("row", "reason"), BAD.values(), ids=BAD)
def test_bad_rows_stop_or_are_set_aside(tmp_path, row, reason):
    body = f"x,a,1,1\n{row}\ny,a,1,1\n"
    with pytest.raises(BadInput) as refused:
        csv(tmp_path, body)
    assert f"ratings.csv, row 3: {reason}" in str(refused.value)
    assert "dataset.bad_rows to quarantine" in str(refused.value)
    data = csv(tmp_path, body, bad_rows="quarantine")
    assert [row[0] for row in rows(data)] == ["x", "y"]
    assert (data.ingestion.read, data.ingestion.kept) == (3, 2)
    (aside,) = read_parquet(data.ingestion.quarantine).to_pylist()
    assert (aside["row"], aside["file"]) == (3, str(tmp_path / "ratings.csv"))
    assert aside["reason"].startswith(reason)


def test_a_quote_that_never_closes_is_no_row_but_a_refusal(tmp_path):
    for body in ('x,"a,1,1\ny,a,1,1\n', 'x,"a,1,1\ny,a"b,1,1\n'):
        with pytest.raises(BadInput, match="row 2: a quote opens and does not close"):
            csv(tmp_path, body, bad_rows="quarantine")
    data = csv(tmp_path, 'x,"a,1,1\n', quoting="none")
    assert rows(data) == [("x", '"a', 1.0, 1)]


def test_an_item_without_title_and_text_keeps_its_place(tmp_path):
    items = write(tmp_path, "items.csv", "item_id,title,artist\n1,One,Ann\n2,,\n3,,Bo\n")
    log = write(tmp_path, "log.csv", "user_id,item_id\na,1\na,2\nb,3\n")
    columns = {"rating": None, "timestamp": None, "title": "title", "text": ["artist"]}
    data = load({"interactions": log, "items": items, "columns": columns})
    assert catalogue(data) == {
        "1": ("One – Ann", None, None),
        "2": (None, None, None),
        "3": ("Bo", None, None),
    }


def test_text_as_spreadsheets_write_it(tmp_path):
    text = HEADER + 'u,"a ""b"", c",1,1\n\n"v",a,2,2'
    data = load({"interactions": write(tmp_path, "r.csv", b"\xef\xbb\xbf" + text.encode())})
    assert rows(data) == [("u", 'a "b", c', 1.0, 1), ("v", "a", 2.0, 2)]
    windows = text.replace("\n", "\r\n").encode("utf-16")
    again = load({"interactions": write(tmp_path, "r.csv", windows), "encoding": "utf-16"})
    assert rows(again) == rows(data)


def test_titles_in_another_encoding_and_over_several_lines(tmp_path):
    items = 'item_id,title\na,"Am\xe9lie\nPoulain"\nb,' + "x" * 100_000 + "\n"
    settings = {
        "interactions": write(tmp_path, "r.csv", HEADER + "u,a,1,1\nu,b,1,1\n"),
        "items": write(tmp_path, "i.csv", items.encode("latin-1")),
        "columns": {"title": "title"},
    }
    with pytest.raises(
        BadInput, match=r"i\.csv, row 2: it is not utf-8\. .*dataset\.encoding to cp1252"
    ):
        load(settings)
    titles = catalogue(load({**settings, "encoding": "latin-1"}))
    assert titles["a"][0] == "Amélie\nPoulain"
    assert len(titles["b"][0]) == 100_000


def test_items_on_one_side_only_and_without_title(tmp_path):
    settings = {
        "interactions": write(tmp_path, "r.csv", HEADER + "u,a,1,1\nu,b,1,1\n"),
        "items": write(tmp_path, "i.csv", "item_id,title,year\nb,,1999\nc,C,soon\nc,D,1\n"),
        "columns": {"title": "title", "year": "year"},
    }
    with pytest.raises(BadInput, match=r"i\.csv, row 4: an earlier row has the same item_id"):
        load(settings)
    data = load({**settings, "bad_rows": "quarantine"})
    assert catalogue(data) == {
        "a": (None, None, None),
        "b": (None, 1999, None),
        "c": ("C", None, None),
    }
    assert set(data.ingestion.notes) == {
        "2 items without title",
        "1 items with interactions that the item file does not describe",
        "1 items in the catalogue without interactions",
        "1 items with an unreadable year",
    }
    assert data.ingestion.items[0].rows == 1
    touched = load({**settings, "bad_rows": "quarantine", "k_core": {"items": 1}})
    assert set(catalogue(touched)) == {"a", "b"}


@pytest.mark.parametrize(
    ("unit", "value", "seconds"),
    [
        ("ms", "1500000000999", 1_500_000_000),
        ("iso", "2017-07-14T02:40:00", 1_500_000_000),
        ("iso", "2017-07-14 04:40:00+02:00", 1_500_000_000),
        ("iso", "2017-07-14", 1_499_990_400),
        ("s", "1500000000.9", 1_500_000_000),
    ],
)
def test_units_of_time(tmp_path, unit, value, seconds):
    assert rows(csv(tmp_path, f"u,a,1,{value}\n", timestamp_unit=unit))[0][3] == seconds


@pytest.mark.parametrize(
    ("unit", "value", "fix"),
    [
        ("ms", "1500000000", "timestamp: seconds?. Set dataset.timestamp_unit to s"),
        ("s", "2017-07-14", "not a number. Set dataset.timestamp_unit to iso"),
        ("iso", "1500000000", "no ISO date or time. Set dataset.timestamp_unit to s or ms"),
    ],
)
def test_a_wrong_unit_is_recognised(tmp_path, unit, value, fix):
    with pytest.raises(BadInput) as refused:
        csv(tmp_path, f"u,a,1,{value}\n", timestamp_unit=unit)
    assert fix in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "content", "message"),
    [
        (
            {},
            "user_id;item_id;rating;timestamp\nu;a;1;1\n",
            "seems to be semicolons: set dataset.delimiter",
        ),
        ({}, "user_id,item_id,rating\nu,a,1\n", "no column timestamp; it has user_id, item_id"),
        ({}, "user_id,item_id,rating,timestamp,rating\n", "two columns are called rating"),
        ({}, "", "r.csv: the file is empty"),
        ({}, HEADER, "no interactions are left of 0 rows. Add some"),
        ({"rating_from": 3}, HEADER + "u,a,,1\n", "rating_from needs ratings, but it has none"),
        ({}, HEADER.encode() + b"u,a\xff,1,1\n", "row 2: it is not utf-8"),
        (
            {"columns": {"timestamp": None}, "since": "2020-01-01"},
            HEADER + "u,a,1,1\n",
            "need times",
        ),
    ],
)
def test_files_that_cannot_be_used(tmp_path, settings, content, message):
    with pytest.raises(BadInput, match=message):
        load({"interactions": write(tmp_path, "r.csv", content), **settings})


def test_a_damaged_archive(tmp_path):
    whole = gzip.compress((HEADER + "u,a,1,1\n" * 1000).encode())
    for content in (whole[:-20], whole[:5]):
        with pytest.raises(BadInput, match=r"r\.csv\.gz.*the archive is damaged or ends too early"):
            load({"interactions": write(tmp_path, "r.csv.gz", content)})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "csv"}, "needs interactions"),
        ({"format": "movielens"}, "needs path"),
        ({"format": "atomic", "interactions": "x"}, "found by name and path"),
        ({"interactions": "x.csv", "encoding": "klingon"}, "is no encoding"),
        ({"interactions": "x.csv", "encoding": "rot13"}, "is no encoding"),
        ({"interactions": "x.csv", "since": "soon"}, "write a date or time"),
        ({"interactions": "x.csv", "since": "2020-01-01", "until": "2020-01-01"}, "before until"),
        ({"interactions": "x.csv", "delimiter": "::", "quoting": "double"}, "several characters"),
        ({"interactions": "x.csv", "sha256": {"items": "abc"}}, "64 hex digits"),
    ],
)
def test_settings_that_contradict_each_other(settings, message):
    with pytest.raises(ValidationError, match=message):
        Dataset.model_validate(settings)


def test_fields_of_users_of_ones_own(tmp_path):
    settings = {
        "interactions": write(tmp_path, "r.csv", HEADER + "007,a,1,1\n"),
        "columns": {"user_file_user": "id"},
    }
    with pytest.raises(BadInput, match=r"the data set has no user file. Set dataset\.users"):
        load(settings, ("age",))
    settings["users"] = write(tmp_path, "u.csv", "id,age,zip\n007,33,x\n8,,y\n")
    people = read_parquet(load(settings, ("age",)).demographics).to_pylist()
    assert people == [{"user_id": "007", "age": "33"}, {"user_id": "8", "age": None}]
    assert load(settings).demographics is None
    with pytest.raises(BadInput, match=r"u\.csv: no column job"):
        load(settings, ("job",))


def test_many_blocks_are_one_file(tmp_path, monkeypatch):
    """Blocks far smaller than the file give the same rows and the same line numbers."""
    monkeypatch.setattr("models.dataset.delimited_text.BLOCK", 1 << 10)
    body = "".join(f'u{n},"item\n{n}"\n' if n % 7 == 0 else f"u{n},i{n}\n" for n in range(2000))
    settings = {
        "interactions": write(tmp_path, "r.csv", "user_id,item_id\n" + body),
        "columns": {"rating": None, "timestamp": None},
        "bad_rows": "quarantine",
    }
    data = load(settings)
    assert data.ingestion.read == 2000
    assert data.ingestion.kept == 2000 - 286  # ids with a line end are refused: 0, 7, …, 1995
    aside = read_parquet(data.ingestion.quarantine)["row"].to_pylist()
    # 2 is the first line after the header; every seventh row takes two lines, the others one.
    assert aside == [2 + 8 * n for n in range(286)]
