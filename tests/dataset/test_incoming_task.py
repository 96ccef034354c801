"""Drops of new interactions: what is read, what is refused and why, and what they add."""

import os
import socket
import time
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from flows.nightly_retrain import fold_drops
from flows.steps.stage_runner import StageRunner
from models.errors import BadInput
from models.schemas import INTERACTIONS, ITEMS, QUARANTINE, USERS
from tasks.dataset.incoming_task import Folded, drops, fold_in, incoming
from tasks.dataset.outputs import Interactions
from tasks.storage.artifacts import read_parquet, write_parquet
from tests.support.toy_world import catalogue, train

pytestmark = pytest.mark.usefixtures("data_dir", "no_run_logger")

HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
COMMAS = "user_id,item_id,rating,timestamp\n"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "incoming"
    path.mkdir()
    return path


def drop(folder, name, content, age=3600.0):
    """Write a file that was finished `age` seconds ago."""
    file = folder / name
    if isinstance(content, pa.Table):
        pq.write_table(content, file)
    else:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    then = time.time() - age
    os.utime(file, (then, then))
    return file


def read_one(folder):
    (found,) = drops(folder).files
    result = incoming.fn(found)
    return read_parquet(result.interactions), read_parquet(result.quarantine)


def base() -> Interactions:
    table = train(("u1", "a", 5, 10), ("u1", "b", 3, 20), ("u2", "a", 4, 30))
    return Interactions(
        interactions=write_parquet("interactions", table),
        items=write_parquet("items", catalogue(("a", "Heat", 1995, ["Crime"]), ("b", "Fargo"))),
        users=write_parquet("users", pa.table({"user_id": ["u1", "u2"]}, schema=USERS)),
    )


def folded(folder, data=None) -> Folded:
    found = drops(folder)
    return fold_in.fn(data or base(), [incoming.fn(one) for one in found.files])


def rows_of(data: Interactions) -> list[tuple]:
    return [tuple(row.values()) for row in read_parquet(data.interactions).to_pylist()]


# Rows: which are good, and what is wrong with the others

ROWS = {
    "u,i,4,881250949": None,
    "007,i,4.5,881250949.9": None,
    '"u","i","4","5"': None,
    '"a, ""b""",i,4,5': None,
    "u,i,,5": None,
    "u,i,-1,0": None,
    "ü,映画,1e0,5": None,
    ",i,4,5": "user_id is empty",
    "u,  ,4,5": "item_id is empty",
    "u, i,4,5": "item_id has white space around it",
    "u,i\tj,4,5": "item_id holds control characters",
    "u,i\x00,4,5": "it holds control characters",
    "u,i,good,5": "rating is not a number",
    "u,i,NaN,5": "rating is NaN or infinite",
    "u,i,-inf,5": "rating is NaN or infinite",
    "u,i,1e300,5": "rating is too large",
    "u,i,4,": "timestamp is empty",
    "u,i,4,yesterday": "timestamp is not a number",
    "u,i,4,nan": "timestamp is NaN or infinite",
    "u,i,4,-1": "timestamp is negative",
    "u,i,4,881250949000": "timestamp: milliseconds?",
    "u,i,4,4102444800": "timestamp is after the year 2099",
    "u,i,4": "3 values instead of 4",
    "u,i,4,5,6": "5 values instead of 4",
    "nonsense": "1 values instead of 4",
    'u,i,4,"5': "quotes do not match",
    'u,"i"j,4,5': "quotes do not match",
    f"u,{'i' * 70_000},4,5": "item_id is longer than 65536 bytes",
}


def test_every_kind_of_bad_row_is_refused_with_its_line_and_reason(folder):
    drop(folder, "dirty.csv", COMMAS + "\r\n".join(ROWS) + "\n")
    clean, quarantine = read_one(folder)
    expected = [
        ("dirty.csv", number, line[:500], reason)
        for number, (line, reason) in enumerate(ROWS.items(), 2)
        if reason
    ]
    assert [tuple(row.values()) for row in quarantine.to_pylist()] == expected
    assert quarantine.schema.remove_metadata() == QUARANTINE
    assert clean.schema.remove_metadata() == INTERACTIONS
    assert [tuple(row.values()) for row in clean.to_pylist()] == [
        ("u", "i", 4.0, 881250949),
        ("007", "i", 4.5, 881250949),
        ("u", "i", 4.0, 5),
        ('a, "b"', "i", 4.0, 5),
        ("u", "i", None, 5),
        ("u", "i", -1.0, 0),
        ("ü", "映画", 1.0, 5),
    ]


def test_blank_lines_are_no_rows_but_count_as_lines(folder):
    drop(folder, "a.inter", "\n" + HEADER + "\nu\ta\t1\t1\n\n\nu\tb\tx\t1\n")
    clean, quarantine = read_one(folder)
    assert clean.num_rows == 1
    assert quarantine["row"].to_pylist() == [7]


def test_quotes_mean_nothing_between_tabs(folder):
    drop(folder, "a.tsv", HEADER + 'u"\t"a\t1\t1\n')
    clean, quarantine = read_one(folder)
    assert clean["user_id"].to_pylist() == ['u"']
    assert clean["item_id"].to_pylist() == ['"a']
    assert quarantine.num_rows == 0


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "\ufefftimestamp,extra,rating:float,item_id,user_id,extra\n7,x,5,i,u,y\n"),
        ("a.CSV", '"user_id","item_id","rating","timestamp"\nu,i,5,7'),
        ("a.tsv", HEADER.replace(":token", "") + "u\ti\t5\t7\r\n"),
        ("a.inter", HEADER + "u\ti\t5\t7\n"),
        ("a.parquet", train(("u", "i", 5, 7))),
    ],
)
def test_columns_may_stand_in_any_order_among_others(folder, name, content):
    drop(folder, name, content)
    clean, quarantine = read_one(folder)
    assert [tuple(row.values()) for row in clean.to_pylist()] == [("u", "i", 5.0, 7)]
    assert quarantine.num_rows == 0


def test_parquet_values_are_judged_like_text(folder):
    table = pa.table(
        {
            "user_id": pa.array([7, 8, None, 9, 10]),
            "item_id": pa.array(["a", "b", "c", "", "e"]).dictionary_encode(),
            "rating": pa.array([1.5, float("nan"), 2, 3, None]),
            "timestamp": pa.array([1, 2, 3, 4, 881250949000], pa.uint64()),
        }
    )
    drop(folder, "a.parquet", table)
    clean, quarantine = read_one(folder)
    assert [tuple(row.values()) for row in clean.to_pylist()] == [("7", "a", 1.5, 1)]
    assert [(row["row"], row["reason"]) for row in quarantine.to_pylist()] == [
        (2, "rating is NaN or infinite"),
        (3, "user_id is empty"),
        (4, "item_id is empty"),
        (5, "timestamp: milliseconds?"),
    ]
    assert quarantine["line"][0].as_py() == "8, b, nan, 2"


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_parquet_times_may_be_timestamps_of_any_unit(folder, unit):
    times = pa.array([datetime(1997, 12, 4, 15, 55, 49, tzinfo=UTC)], pa.timestamp(unit, "UTC"))
    table = pa.table({"user_id": ["u"], "item_id": ["i"], "rating": [1], "timestamp": times})
    drop(folder, "a.parquet", table)
    assert read_one(folder)[0]["timestamp"].to_pylist() == [881250949]


# Whole files


def whole():
    return train(*[(f"u{n}", "i", 1, n) for n in range(1000)])


def parquet_bytes(table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


FLOATS = pa.table({"user_id": [1.0], "item_id": ["i"], "rating": [1.0], "timestamp": [1]})
UNREADABLE = {
    "empty": ("a.csv", "", "the file is empty"),
    "blank": ("a.tsv", "\n\n", "the file is empty"),
    "no header": ("a.csv", "196,242,3,881250949\n", "no column user_id, .* it has 196, 242"),
    "missing column": ("a.csv", "user_id,item_id,rating\nu,i,5\n", "no column timestamp"),
    "other delimiter": (
        "a.csv",
        HEADER + "u\ti\t5\t7\n",
        "no column user_id, item_id, .* delimiter, which seems to be tabs",
    ),
    "repeated column": ("a.tsv", "user_id\t" + HEADER, "two columns are called user_id"),
    "latin-1": (
        "a.csv",
        COMMAS.encode() + "é,i,5,7\n".encode("latin-1"),
        "row 2: it is not utf-8. Save the file as utf-8",
    ),
    "utf-16": ("a.csv", (COMMAS + "u,i,5,7\n").encode("utf-16"), "row 1: it is not utf-8"),
    "old line ends": (
        "a.csv",
        COMMAS.replace("\n", "\r") + "u,i,5,7\r",
        "row 1: the first line has control characters",
    ),
    "no parquet": ("a.parquet", "PAR1 nonsense", "it cannot be read"),
    "empty parquet": ("a.parquet", "", "it cannot be read"),
    "truncated": ("a.parquet", parquet_bytes(whole())[:-1000], "it cannot be read"),
    "damaged names": (
        "a.parquet",
        parquet_bytes(whole()).replace(b"user_id", b"\xcaser_id"),
        "it cannot be read",
    ),
    "ids are floats": ("a.parquet", FLOATS, "column user_id holds double, not text or whole"),
    "ids are lists": (
        "a.parquet",
        pa.table({**{name: FLOATS[name] for name in FLOATS.column_names}, "user_id": [["u"]]}),
        "column user_id holds list<element: string>, not text or whole",
    ),
    "parquet column": ("a.parquet", FLOATS.drop_columns(["rating"]), "no column rating"),
}


@pytest.mark.parametrize(("name", "content", "reason"), UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_file_is_refused_as_a_whole_and_stops_nothing(folder, name, content, reason):
    drop(folder, name, content)
    clean, quarantine = read_one(folder)
    assert clean.num_rows == 0
    (row,) = quarantine.to_pylist()
    assert (row["file"], row["row"], row["line"]) == (name, None, None)
    assert pc.match_substring_regex(row["reason"], reason).as_py(), row["reason"]


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_file_never_fails_and_every_line_is_counted(folder, seed):
    rng = np.random.default_rng(seed)
    lines = [f'{n % 7},"i{n % 5}",{n % 6},{n}' for n in range(200)]
    content = bytearray((COMMAS + "\n".join(lines)).encode())
    for place in rng.integers(len(COMMAS), len(content), 40):
        content[place] = rng.choice(list(b'",\n\r\t\x00 -e9'))
    drop(folder, "a.csv", bytes(content))
    clean, quarantine = read_one(folder)
    written = [line for line in bytes(content).split(b"\n")[1:] if line.rstrip(b"\r")]
    assert clean.num_rows + quarantine.num_rows == len(written)
    assert clean.num_rows > 100


@pytest.mark.parametrize("seed", range(20))
def test_damaged_parquet_never_fails(folder, seed):
    rng = np.random.default_rng(seed)
    content = bytearray(parquet_bytes(whole()))
    for place in rng.integers(4, len(content) - 8, 5):
        content[place] = rng.integers(256)
    drop(folder, "a.parquet", bytes(content))
    clean, quarantine = read_one(folder)
    assert clean.num_rows + quarantine.num_rows in (1, 1000)


# Which files


def test_unfinished_files_are_left_alone(folder):
    for name in (".a.csv", "_a.csv", "a.csv.part", "a.csv.tmp", "a.csv.crdownload", "a.xlsx"):
        drop(folder, name, COMMAS)
    (folder / "sub.csv").mkdir()
    drop(folder, "young.csv", COMMAS, age=5)
    drop(folder, "b.csv", COMMAS)
    drop(folder, "a.tsv", HEADER)
    found = drops(folder)
    assert [one.name for one in found.files] == ["a.tsv", "b.csv"]
    assert found.waiting == ("young.csv",)
    assert [one.name for one in drops(folder, settle_seconds=1).files][-1] == "young.csv"
    assert drops(folder / "absent").files == ()
    (folder / "file").touch()
    with pytest.raises(BadInput, match=r"nightly\.incoming: .*file: Not a directory"):
        drops(folder / "file")


def test_what_is_no_readable_file_is_set_aside_and_the_night_goes_on(folder, caplog):
    drop(folder, "good.csv", COMMAS + "u3,a,5,7\n")
    os.mkfifo(folder / "fifo.csv")  # opening it would wait for a writer
    (folder / "loop.csv").symlink_to("loop.csv")
    (folder / "gone.csv").symlink_to("nowhere.csv")
    (folder / "loop").symlink_to("loop")
    (folder / "device.csv").symlink_to("/dev/zero")
    (folder / "folder.csv").mkdir()
    (folder / "folder").mkdir()
    (folder / "memory.csv").symlink_to("/proc/self/mem")  # a file that cannot be read
    (folder / b"\xff.csv".decode(errors="surrogateescape")).touch()
    with socket.socket(socket.AF_UNIX) as listening:
        place = os.open(folder, os.O_RDONLY)  # the path of a socket must be short
        listening.bind(f"/proc/self/fd/{place}/socket.csv")
        os.close(place)
        found = drops(folder, settle_seconds=0)
    assert [one.name for one in found.files] == ["good.csv"]
    assert found.waiting == ()
    names = "device fifo folder gone loop loop.csv memory socket".split()  # noqa: SIM905
    assert [name.removesuffix(".csv") for name in found.refused[:-1]] == [
        name.removesuffix(".csv") for name in names
    ]
    assert found.refused[-1] == r"'\udcff.csv'"
    assert "fifo.csv was set aside: no regular file. Replace it" in caplog.text


def test_a_file_that_changes_while_it_is_read_waits(folder, monkeypatch):
    drop(folder, "a.csv", COMMAS)
    look = os.fstat

    def meanwhile(descriptor):
        found = look(descriptor)
        drop(folder, "a.csv", COMMAS + "u,i,5,7\n", age=1800)
        return found

    monkeypatch.setattr(os, "fstat", meanwhile)
    assert drops(folder) == drops(folder).model_copy(update={"files": (), "waiting": ("a.csv",)})


def test_drops_stay_as_they_are(folder):
    file = drop(folder, "a.csv", COMMAS + "u3,a,5,7\n")
    before = (file.read_bytes(), file.stat().st_mtime_ns, sorted(folder.iterdir()))
    folded(folder)
    assert (file.read_bytes(), file.stat().st_mtime_ns, sorted(folder.iterdir())) == before


# Folding in


def test_without_drops_the_data_set_is_the_base(folder):
    data = base()
    result = folded(folder, data)
    assert result == Folded(
        data=data, new_interactions=0, updated=0, repeated=0, quarantined=0, files=0
    )


def test_drops_that_repeat_the_base_change_nothing(folder):
    data = base()
    drop(folder, "a.csv", COMMAS + "u1,a,5,10\nu1,b,1,19\nu1,a,5,10\n")
    result = folded(folder, data)
    assert result.data == data
    assert (result.new_interactions, result.updated, result.repeated) == (0, 0, 3)


def test_new_pairs_newer_ones_and_repeats_are_told_apart(folder):
    drop(
        folder,
        "1.csv",
        COMMAS
        + "u3,c,2,50\n"  # a new user and a new item
        + "u1,a,1,11\n"  # newer than the base's
        + "u2,a,1,29\n"  # older than the base's: out of order
        + "u3,a,5,70\n"
        + "u3,a,4,60\n"  # out of order within the file
        + "u3,,4,60\n",
    )
    drop(folder, "2.tsv", HEADER + "u3\tc\t2\t50\nu1\tb\t3\t20\nu1\tc\t5\t1\n")
    drop(folder, "3.csv", (folder / "1.csv").read_bytes())  # the same again under another name
    drop(folder, "4.parquet", "broken")
    result = folded(folder)
    assert rows_of(result.data) == [
        ("u1", "a", 1.0, 11),
        ("u1", "b", 3.0, 20),
        ("u1", "c", 5.0, 1),
        ("u2", "a", 4.0, 30),
        ("u3", "a", 5.0, 70),
        ("u3", "c", 2.0, 50),
    ]
    # 13 good rows: three new pairs, one newer, the others repeated.
    assert (result.new_interactions, result.updated, result.repeated) == (3, 1, 9)
    assert (result.files, result.quarantined) == (4, 3)
    refused = read_parquet(result.quarantine).to_pylist()
    assert [(row["file"], row["row"], row["reason"][:18]) for row in refused] == [
        ("1.csv", 7, "item_id is empty"),
        ("3.csv", 7, "item_id is empty"),
        ("4.parquet", None, "it cannot be read "),
    ]
    assert read_parquet(result.data.users)["user_id"].to_pylist() == ["u1", "u2", "u3"]
    items = read_parquet(result.data.items)
    assert items.schema.remove_metadata() == ITEMS
    assert items.to_pylist() == [
        {"item_id": "a", "title": "Heat", "year": 1995, "genres": ["Crime"]},
        {"item_id": "b", "title": "Fargo", "year": None, "genres": None},
        {"item_id": "c", "title": None, "year": None, "genres": None},
    ]


def test_of_equally_new_interactions_the_last_file_decides(folder):
    drop(folder, "b.csv", COMMAS + "u9,a,2,5\n")
    drop(folder, "a.csv", COMMAS + "u9,a,1,5\n")
    assert ("u9", "a", 2.0, 5) in rows_of(folded(folder).data)


def test_an_interaction_without_a_time_is_older_than_any(folder):
    data = base()
    untimed = write_parquet("interactions", train(("u1", "a", 5, None)))
    drop(folder, "a.csv", COMMAS + "u1,a,1,0\n")
    result = folded(folder, data.model_copy(update={"interactions": untimed}))
    assert rows_of(result.data) == [("u1", "a", 1.0, 0)]
    assert result.updated == 1


def test_the_state_depends_on_the_files_alone(folder):
    drop(folder, "a.csv", COMMAS + "u3,c,2,50\n")
    step = folded(folder)
    drop(folder, "b.csv", COMMAS + "u3,d,2,51\nu4,a,1,1\n")
    both = folded(folder)
    (folder / "b.csv").unlink()
    assert folded(folder) == step
    drop(folder, "b.csv", COMMAS + "u3,d,2,51\nu4,a,1,1\n", age=999)
    assert folded(folder) == both
    assert both.new_interactions == 3


@pytest.mark.usefixtures("prefect_server")
def test_each_file_is_read_once_and_the_young_are_reported(folder):
    from prefect import flow

    drop(folder, "a.csv", COMMAS + "u3,c,2,50\n")
    drop(folder, "young.csv", COMMAS, age=-3600)
    data = base()

    @flow
    def night() -> tuple[Folded, list[tuple[str, str]]]:
        stages = StageRunner()
        result = fold_drops(data, folder, stages)
        return result, [(record.name, record.state) for record in stages.records]

    first, records = night()
    assert records == [("incoming", "ran"), ("fold_in", "ran")]
    assert (first.new_interactions, first.waiting) == (1, ("young.csv",))
    assert night() == (first, [("incoming", "cached"), ("fold_in", "cached")])
    drop(folder, "b.csv", COMMAS + "u4,a,1,1\nu4,a,x,1\n")
    second, records = night()
    assert records == [("incoming", "cached"), ("incoming", "ran"), ("fold_in", "ran")]
    assert (second.new_interactions, second.quarantined) == (2, 1)
