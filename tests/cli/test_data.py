"""`llmkt data check` and `llmkt init`, as a user would call them."""

import json
import random

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from models.dataset.column_detection import columns, header_guess, unit
from models.dataset.dialect_detection import ranked_delimiters
from tasks.config.pipeline_file import load
from tests.support.dataset_files import HEADER, write

pytestmark = pytest.mark.usefixtures("data_dir")


def llmkt(*arguments):
    # Wide, so that no sentence is broken over lines.
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "300"})


def configuration(folder, ratings: str, **settings):
    dataset = {"name": "toy", "interactions": write(folder, "r.csv", ratings), **settings}
    file = folder / "toy.yaml"
    # JSON is YAML.
    file.write_text(
        json.dumps(
            {
                "experiment": "toy",
                "dataset": dataset,
                "split": {"short_histories": "train"},
                "models": {"Pop": {}},
                "training": {"valid_metric": "ndcg@1"},
                "evaluation": {"k": [1], "primary": "ndcg@1"},
            }
        )
    )
    return file


RATINGS = HEADER + (
    "u,a,1,86400\nu,b,2,86401\nu,c,5,86402\nv,a,5,86403\nv,a,4,86404\nw,a,nan,1\nw,b,x,1\nx,a,nan,1\nu,d,5,86405\n"
)


def checked(*arguments):
    done = llmkt("data", "check", *arguments, "--json")
    return done.exit_code, json.loads(done.stdout.splitlines()[-1])


def test_check_tells_what_a_data_set_holds(tmp_path):
    file = configuration(tmp_path, RATINGS, bad_rows="quarantine", rating_from=2)
    code, found = checked(file)
    assert code == 0
    assert {key: found["read"][key] for key in ("interactions", "users", "items", "repeated")} == {
        "interactions": 6,
        "users": 2,
        "items": 4,
        "repeated": 1,
    }
    assert found["read"]["density"] == pytest.approx(6 / 8)
    assert found["read"]["ratings"]["values"] == [[1.0, 1], [2.0, 1], [4.0, 1], [5.0, 3]]
    assert found["read"]["ratings"]["mean"] == pytest.approx(22 / 6)
    assert (found["read"]["first"], found["read"]["last"]) == (
        "1970-01-02T00:00:00+00:00",
        "1970-01-02T00:00:05+00:00",
    )
    assert found["read"]["per_user"] == {
        "min": 2.0, "25 %": 2.5, "median": 3.0, "75 %": 3.5, "max": 4.0, "mean": 3.0,
    }  # fmt: skip
    assert found["kept"]["interactions"] == 4
    assert found["ingestion"]["read"] == 9
    assert [(drop["step"], drop["rows"]) for drop in found["ingestion"]["dropped"]] == [
        ("bad_rows", 2),
        ("bad_rows", 1),
        ("duplicates", 1),
        ("rating_from", 1),
    ]
    assert [(fault["what"], fault["rows"], fault["count"]) for fault in found["problems"]] == [
        ("rating is NaN or infinite", [7, 9], 2),
        ("rating is not a number", [8], 1),
    ]
    assert found["missing_titles"] == found["catalogue"] == 4


def test_check_ends_with_2_where_a_run_would_stop(tmp_path):
    file = configuration(tmp_path, RATINGS)
    code, found = checked(file)
    assert code == 2
    assert found["problems"][0]["what"].startswith(f"{tmp_path}/r.csv, row 7: rating is NaN")
    done = llmkt("data", "check", file)
    assert done.exit_code == 2
    assert "r.csv, row 7, 9: rating is NaN or infinite. Mend or remove it" in done.stdout
    assert "A run would be refused." in done.stdout
    (tmp_path / "r.csv").unlink()
    code, found = checked(file)
    assert code == 2
    assert "r.csv does not exist" in found["problems"][0]["what"]


def test_check_knows_what_the_split_needs(tmp_path):
    file = configuration(tmp_path, HEADER + "u,a,1,1\nv,b,1,1\n")
    code, found = checked(file, "--set", "split.short_histories=error")
    assert code == 2
    assert "fewer than 3" in found["problems"][0]["what"]


def test_check_of_atomic_files_reads_them_as_a_run_does(tmp_path):
    log = "".join(f"u{n % 3}\ti{n}\t{n % 5}\t{n}\n" for n in range(12)) + "u1\ti1\tbad\t1\n"
    write(tmp_path, "toy.inter", HEADER.replace(",", "\t") + log)
    file = tmp_path / "toy.yaml"
    dataset = f"{{name: toy, path: {tmp_path}}}"
    file.write_text(f"experiment: toy\ndataset: {dataset}\nmodels: {{Pop: {{}}}}\n")
    code, found = checked(file)
    assert code == 2
    assert found["problems"][0]["what"].startswith("toy.inter, row 14: rating is not a number")
    assert found["problems"][1]["rows"] == [14]


def own_files(folder):
    """40 users and 60 albums, in Latin-1 with semicolons, times in milliseconds, one bad row."""
    rng = random.Random(1)
    lines = ["listener;album;stars;played_at"]
    for user in range(40):
        for item in rng.sample(range(60), 12):
            when = 1_500_000_000_000 + rng.randrange(10**10)
            lines.append(f"{user:03d};m{item};{rng.randint(1, 5)};{when}")
    lines.append("099;m1;nan;1500000000000")
    albums = ["albumId;title;genres;artist"]
    albums += [f'm{n};"Caf\xe9; part {n} ({1960 + n})";Jazz|Pop;Ann' for n in range(55)]
    ratings = folder / "plays.csv"
    ratings.write_text("\n".join(lines), encoding="latin-1")
    items = folder / "albums.csv"
    items.write_text("\n".join(albums), encoding="latin-1")
    return ratings, items


def test_init_writes_a_configuration_that_goes_through(tmp_path):
    ratings, items = own_files(tmp_path)
    output = tmp_path / "new" / "mine.yaml"
    done = llmkt("init", "--from", ratings, "--items", items, "-o", output)
    assert done.exit_code == 0, done.output
    assert 'row 2 then reads m0;"Café' in done.stdout
    pipeline = load(output)
    dataset = pipeline.dataset
    assert (dataset.kind, dataset.delimiter, dataset.of("items").encoding) == ("csv", ";", "cp1252")
    assert (dataset.timestamp_unit, dataset.bad_rows) == ("ms", "quarantine")
    assert (dataset.year_from_title, dataset.genre_separator) == (True, "|")
    assert dataset.columns.model_dump(exclude_defaults=True) == {
        "user": "listener",
        "item": "album",
        "rating": "stars",
        "timestamp": "played_at",
        "item_file_item": "albumId",
        "title": "title",
        "genres": "genres",
        "text": ("artist",),
    }
    assert pipeline.profiles.prompt == "user-music"
    code, found = checked(output)
    assert code == 0
    assert (found["ingestion"]["read"], found["ingestion"]["kept"]) == (481, 480)
    again = llmkt("init", "--from", ratings, "-o", output)
    assert again.exit_code == 2
    assert "exists already" in again.output


def test_init_of_a_small_file_without_header_and_of_nothing(tmp_path):
    lines = [f"{n % 4}\t{n // 4}\t{n % 5 + 1}\t{880000000 + n}" for n in range(60)]
    small = write(tmp_path, "log.txt", "\n".join(lines))
    done = llmkt("init", "--from", small, "-o", tmp_path / "small.yaml")
    assert done.exit_code == 0, done.output
    dataset = load(tmp_path / "small.yaml").dataset
    assert not dataset.header
    assert dataset.columns.model_dump()["user"] == "1"
    assert dataset.columns.rating == "3"
    assert dataset.columns.timestamp == "4"
    for content, message in ((b"", "is empty"), (b"x\ny\n", "no column item_id; it has")):
        empty = write(tmp_path, "empty.csv", content)
        done = llmkt("init", "--from", empty, "-o", tmp_path / "no.yaml")
        assert done.exit_code == 2
        assert message in done.output
        # What can be guessed is written even where a run is refused.
        assert (tmp_path / "no.yaml").exists() is bool(content)


@pytest.mark.parametrize("mark", [",", "\t", ";", "::", "|"])
def test_delimiters_are_told_apart(mark):
    rows = [mark.join((f"u{n}", f"Title {n}, the 1st", "4.5")) for n in range(5)]
    rows = rows if mark != "," else [row.replace(", the", "") for row in rows]
    assert ranked_delimiters(rows)[0][0] == mark


def test_columns_are_guessed_by_name_and_by_content():
    rows = [["1", "9", "3", "1500000000"], ["2", "9", "5", "1500000001"]]
    by_content = columns(["1", "2", "3", "4"], rows, ("user", "item", "rating", "timestamp"))
    assert [guess.value for guess in by_content] == ["1", "2", "3", "4"]
    by_name = columns(["ts", "asin", "reviewerID", "overall"], rows, ("user", "item", "rating"))
    assert [guess.value for guess in by_name] == ["reviewerID", "asin", "overall"]
    assert header_guess(["1", "9"], [["2", "9"]]).value == "false"
    assert header_guess(["who", "n"], [["a", "9"]]).value == "true"
    assert [unit([value]).value for value in ("1500000000", "1500000000000", "2017-07-14")] == [
        "s",
        "ms",
        "iso",
    ]
