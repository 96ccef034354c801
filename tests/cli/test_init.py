"""`llmkt init` on files of others: right columns, or one sentence and a file with the guesses."""

import gzip
import io
import json
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from tasks.config.pipeline_file import load
from tasks.dataset.interactions_task import interactions
from tasks.dataset.source_files import raw_files
from tests.support.dataset_files import catalogue, rows, write

pytestmark = pytest.mark.usefixtures("data_dir", "no_run_logger")


def init(folder, interactions_file, *more):
    output = folder / "mine.yaml"
    arguments = ["init", "--from", interactions_file, "-o", output, "--force", *more]
    done = CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "300"})
    assert done.exit_code in (0, 2), done.output
    return done, output


def ingested(output):
    config = load(output).dataset
    return interactions.fn(config, raw_files(config), ())


def log(mark=",", header="user_id,item_id,rating,timestamp", when="{}", stars="{}"):
    """20 users with 5 items of 12 each."""
    lines = [header.replace(",", mark)] if header else []
    for n in range(100):
        cells = f"u{n // 5}", f"i{n * 7 % 12}", stars.format(n % 5 + 1), when.format(1500000000 + n)
        lines.append(mark.join(cells))
    return "\n".join(lines) + "\n"


def test_decimal_commas_and_other_times(tmp_path):
    file = write(tmp_path, "r.csv", log(";", stars="{},5", when="{}000000"))
    done, output = init(tmp_path, file)
    assert done.exit_code == 0, done.output
    assert rows(ingested(output))[0] == ("u0", "i0", 1.5, 1_500_000_000)
    assert load(output).dataset.timestamp_unit == "us"


def test_times_that_no_format_fits_are_left_out_with_the_reason(tmp_path):
    done, output = init(tmp_path, write(tmp_path, "r.csv", log(when="moment {}")))
    assert done.exit_code == 0, done.output
    assert "columns.timestamp: timestamp is called so, but no known format of times" in done.stdout
    assert load(output).dataset.columns.timestamp is None
    assert "# " in output.read_text()
    assert "no known format of times fits moment 1500000000" in output.read_text()


def test_items_may_be_written_otherwise(tmp_path):
    ratings = write(tmp_path, "r.dat", log("::", header="").encode())
    genres = "[{'id': 18, 'name': 'Drama'}, {'id': 35, 'name': 'Sci-Fi, dark'}]"
    lines = [f'{n},"{genres}",i{n},"A ""big""\nfilm {n}","[""Ann"", ""Bob""]"' for n in range(12)]
    items = write(tmp_path, "m.csv", "id,genres,imdb,title,authors\n" + "\n".join(lines))
    done, output = init(tmp_path, ratings, "--items", items)
    assert done.exit_code == 0, done.output
    dataset = load(output).dataset
    assert (dataset.delimiter, dataset.header) == ("::", False)
    assert dataset.of("items").delimiter == ","
    # The column that holds the interactions' items, whatever others are called.
    assert dataset.columns.item_file_item == "imdb"
    title, _, found = catalogue(ingested(output))["i3"]
    assert (title, found) == ('A "big"\nfilm 3 – Ann, Bob', ["Drama", "Sci-Fi, dark"])


def test_json_lines_of_reviews(tmp_path):
    def written(name, make, n):
        return write(tmp_path, name, "".join(json.dumps(make(k)) + "\n" for k in range(n)))

    reviews = written(
        "review.json",
        lambda k: {
            "review_id": f"r{k}", "user_id": f"u{k // 5}", "business_id": f"i{k * 7 % 12}",
            "stars": k % 5 + 1.0, "useful": 0, "text": "x, y",
            "date": f"2016-03-09 00:{k % 60:02}:38",
        },
        100,
    )  # fmt: skip
    items = written(
        "business.json",
        lambda k: {"business_id": f"i{k}", "name": f"Café {k}", "categories": ["Pizza", "Bars"]},
        12,
    )
    done, output = init(tmp_path, reviews, "--items", items)
    assert done.exit_code == 0, done.output
    data = ingested(output)
    assert rows(data)[0] == ("u0", "i0", 1.0, 1457481638)
    assert catalogue(data)["i1"] == ("Café 1", None, ["Pizza", "Bars"])
    (tmp_path / "review.json").write_text("[1, 2]\n")
    done, _ = init(tmp_path, reviews)
    assert done.exit_code == 2


def packed(kind: str) -> bytes:
    content, stream = log().encode(), io.BytesIO()
    if kind == "gzip":
        return gzip.compress(content)
    if kind in ("zip", "two", "xlsx"):
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("r.csv" if kind != "xlsx" else "[Content_Types].xml", content)
            if kind != "zip":
                archive.writestr("xl/sheet.xml", content)
    elif kind == "tar":
        with tarfile.open(fileobj=stream, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("r.csv"), io.BytesIO(b""))
    elif kind == "page":
        return b"<!DOCTYPE html><html><body>Sign in</body></html>"
    elif kind == "parquet":
        lines = [line.split(",") for line in log().splitlines()]
        columns = dict(zip(lines[0], map(list, zip(*lines[1:], strict=True)), strict=True))
        pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["gzip", "zip", "parquet"])
def test_content_decides_the_kind_of_a_file(tmp_path, kind):
    done, output = init(tmp_path, write(tmp_path, "ratings.csv", packed(kind)))
    assert done.exit_code == 0, done.output
    assert len(rows(ingested(output))) == 100


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("xlsx", "it is an Excel workbook. Save it as CSV in UTF-8."),
        ("two", "a zip file of 2 files (r.csv, xl/sheet.xml). Unpack it and name one of them."),
        ("tar", "it is a tar archive, not text. Unpack it"),
        ("page", "it is a web page, not data. Download the file itself."),
    ],
)
def test_what_is_no_text_is_named(tmp_path, kind, sentence):
    done, _ = init(tmp_path, write(tmp_path, "ratings.csv", packed(kind)))
    assert done.exit_code == 2
    assert f"ratings.csv: {sentence}" in done.output


def test_a_file_that_is_mostly_bad_is_not_set_aside(tmp_path):
    text = "user_id,item_id,rating\n" + "".join(f"u{n % 20}, i{n % 9},3\n" for n in range(100))
    done, output = init(tmp_path, write(tmp_path, "r.csv", text))
    assert done.exit_code == 2
    assert "row 2, 3, 4, 5, 6 and 95 more: item_id has white space around it" in done.stdout
    assert load(output).dataset.bad_rows == "error"
    assert "# A run is refused:" in output.read_text()


def test_items_that_cannot_be_read_do_not_take_the_interactions_with_them(tmp_path):
    items = write(tmp_path, "items.csv", packed("xlsx"))
    done, output = init(tmp_path, write(tmp_path, "r.csv", log()), "--items", items)
    assert done.exit_code == 2
    assert "it is an Excel workbook" in done.stdout
    assert len(rows(ingested(output))) == 100


@pytest.mark.parametrize(
    ("above", "sentence"),
    [
        ("# exported", "row 1: the first line is not divided like the others (# exported). Remove"),
        ("a,b", "4 values instead of 2. Mend or remove it, or the first line if that is no header"),
    ],
)
def test_what_stands_above_the_header_is_named(tmp_path, above, sentence):
    done, _ = init(tmp_path, write(tmp_path, "r.csv", f"{above}\n{log()}"))
    assert done.exit_code == 2
    assert sentence in done.output
