"""Published data sets in the formats of their READMEs, bad rows included; and fetching them."""

import gzip
import json
import os
import zipfile

import pytest
from tenacity import wait_none
from werkzeug import Request, Response

from models.errors import BadInput
from tasks.config.pipeline_file import load as load_configuration
from tasks.storage.artifacts import PROJECT_ROOT, read_parquet
from tests.support.dataset_files import catalogue, dropped, load, rows, write

pytestmark = pytest.mark.usefixtures("data_dir", "no_run_logger")

ML_1M = {
    "ratings.dat": b"1::1193::5::978300760\n1::661::3::978302109\n007::1193::4::978301968\n",
    "movies.dat": (
        b"1193::One Flew Over the Cuckoo's Nest (1975)::Drama\n"
        b"661::Mis\xe9rables, Les (1995)::Drama|Musical\n"
        b"2::Only on this side (1942)::Film-Noir\n"
    ),
    "users.dat": b"1::F::1::10::48067\n007::M::56::16::70072\n",
}
ML_100K = {
    "u.data": b"196\t242\t3\t881250949\n186\t302\t3\t891717742\n",
    "u.item": (
        b"242|Kolya (1996)|24-Jan-1997||http://us.imdb.com/M/title-exact?Kolya%20(1996)"
        b"|0|0|0|0|0|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
        b"302|L.A. Confidential (1997)|01-Jan-1997||http://us.imdb.com/M/title-exact?L%2EA%2E"
        b"|0|0|0|0|0|0|1|0|0|0|1|0|0|1|0|0|1|0|0\n"
        b"267|unknown||||1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
    ),
    "u.user": b"196|49|M|writer|55105\n186|39|F|executive|00000\n",
}
ML_LATEST = {
    "ratings.csv": b"userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,11,0.5,964981247\n",
    "movies.csv": (
        "movieId,title,genres\n1,Toy Story (1995),Adventure|Children\n"
        '11,"American President, The (1995)",Comedy|Drama|Romance\n'
        '3,"Série noire (1979)",(no genres listed)\n4,Babylon 5,Sci-Fi\n'
        "5,The OA (2016– ) ,Drama\n"
    ).encode(),
}
REVIEWS = {
    2014: [
        {"reviewerID": "A3EBHHCZO6V2A4", "asin": "5555991584", "reviewerName": "A, \"music\" fan",
         "helpful": [3, 3], "reviewText": "It's hard\nto believe", "overall": 5.0,
         "summary": "Enya's last", "unixReviewTime": 1000339200, "reviewTime": "09 13, 2001"},
    ],
    2018: [
        {"overall": 5.0, "vote": "2", "verified": True, "reviewTime": "01 5, 2015",
         "reviewerID": "A3EBHHCZO6V2A4", "asin": "5555991584", "style": {"Format:": " Audio CD"},
         "reviewerName": "x", "reviewText": "y", "summary": "z", "unixReviewTime": 1000339200},
    ],
    2023: [
        {"rating": 5.0, "title": "Great", "text": "Love it", "images": [], "asin": "B00OLD",
         "parent_asin": "5555991584", "user_id": "A3EBHHCZO6V2A4", "timestamp": 1000339200123,
         "helpful_vote": 0, "verified_purchase": True},
    ],
}  # fmt: skip
METADATA = {
    2014: (
        "{'asin': '5555991584', 'title': \"Memory of Trees, it's\", 'price': 9.49, "
        "'imUrl': 'http://x.jpg', 'related': {'also_bought': ['B1']}, "
        "'salesRank': {'Music': 939190}, 'brand': '', "
        "'categories': [['CDs & Vinyl', 'New Age', 'Celtic'], "
        "['CDs & Vinyl', 'New Age']]}"
    ),
    2018: json.dumps(
        {"category": ["CDs &amp; Vinyl", "New Age", "Celtic"], "title": "Memory of Trees, it&#39;s",
         "brand": "Enya", "rank": "58,291 in CDs", "asin": "5555991584", "price": "$9.49"}
    ),
    2023: json.dumps(
        {"main_category": "Digital Music", "title": "Memory of Trees, it's", "average_rating": 4.7,
         "rating_number": 12, "features": [], "description": [], "price": 9.49, "images": [],
         "videos": [], "store": "Enya   Format: Audio CD", "parent_asin": "5555991584",
         "categories": ["CDs & Vinyl", "New Age", "Celtic"], "details": {"Label": "Reprise"}}
    ),
}  # fmt: skip


def folder(tmp_path, files):
    place = tmp_path / "ml"
    place.mkdir()
    for name, content in files.items():
        (place / name).write_bytes(content)
    return str(place)


def packed(tmp_path, files):
    file = tmp_path / "ml.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"ml-1m/{name}", content)
        archive.writestr("ml-1m/README", "licence")
    return str(file)


def movielens(path, **settings):
    return load({"format": "movielens", "path": path, **settings})


def test_movielens_1m(tmp_path):
    data = movielens(folder(tmp_path, ML_1M))
    assert rows(data) == [
        ("007", "1193", 4.0, 978301968),
        ("1", "1193", 5.0, 978300760),
        ("1", "661", 3.0, 978302109),
    ]
    assert catalogue(data) == {
        "1193": ("One Flew Over the Cuckoo's Nest", 1975, ["Drama"]),
        "2": ("Only on this side", 1942, ["Film-Noir"]),
        "661": ("Misérables, Les", 1995, ["Drama", "Musical"]),
    }


def test_movielens_10m_has_the_same_names_and_utf_8(tmp_path):
    files = {**ML_1M, "movies.dat": "661::Misérables, Les (1995)::Drama\n".encode()}
    assert catalogue(movielens(folder(tmp_path, files)))["661"][0] == "Misérables, Les"


def test_titles_in_a_detected_encoding_that_is_damaged(tmp_path):
    files = {**ML_1M, "movies.dat": "661::Heat (1995)::Drama\n".encode("utf-16")[:-1]}
    with pytest.raises(BadInput, match=r"row 1: it is not utf-16\. Set dataset\.encoding"):
        movielens(folder(tmp_path, files))


def test_movielens_100k_as_published(tmp_path):
    data = movielens(folder(tmp_path, ML_100K))
    assert rows(data) == [("186", "302", 3.0, 891717742), ("196", "242", 3.0, 881250949)]
    assert catalogue(data) == {
        "242": ("Kolya", 1996, ["Comedy"]),
        "267": ("unknown", None, ["unknown"]),
        "302": ("L.A. Confidential", 1997, ["Crime", "Film-Noir", "Mystery", "Thriller"]),
    }


def test_movielens_of_today(tmp_path):
    data = movielens(folder(tmp_path, ML_LATEST))
    assert rows(data) == [("1", "1", 4.0, 964982703), ("1", "11", 0.5, 964981247)]
    assert catalogue(data) == {
        "1": ("Toy Story", 1995, ["Adventure", "Children"]),
        "11": ("American President, The", 1995, ["Comedy", "Drama", "Romance"]),
        "3": ("Série noire", 1979, []),
        "4": ("Babylon 5", None, ["Sci-Fi"]),
        "5": ("The OA", 2016, ["Drama"]),
    }


def test_a_zip_file_and_its_folder_are_the_same_configuration(tmp_path):
    from models.config import Dataset
    from tasks.dataset.source_files import raw_files

    paths = folder(tmp_path, ML_1M), packed(tmp_path, ML_1M)
    one, two = (Dataset(format="movielens", path=path) for path in paths)
    assert one.digest() == two.digest()
    assert raw_files(one) == raw_files(two)


def test_movielens_users_when_asked_for(tmp_path):
    data = load({"format": "movielens", "path": folder(tmp_path, ML_1M)}, ("gender", "age"))
    assert read_parquet(data.demographics).to_pylist() == [
        {"user_id": "007", "gender": "M", "age": "56"},
        {"user_id": "1", "gender": "F", "age": "1"},
    ]


@pytest.mark.parametrize(
    ("files", "name", "bad", "reason"),
    [
        (ML_1M, "ratings.dat", b"1::2::3\n", "ratings|row 4: 3 values instead of 4"),
        (ML_1M, "ratings.dat", b"1:2:3:4\n", "row 4: 1 values instead of 4"),
        (ML_1M, "movies.dat", b"9::No genres (1990)\n", "row 4: 2 values instead of 3"),
        (ML_100K, "u.data", b"1\t2\tx\t881250949\n", "row 3: rating is not a number"),
        (ML_LATEST, "movies.csv", b'1,"Again",X\n', "row 7: an earlier row has the same item_id"),
    ],
)
def test_malformed_rows_of_movielens(tmp_path, files, name, bad, reason):
    path = folder(tmp_path, {**files, name: files[name] + bad})
    with pytest.raises(BadInput, match=reason.replace("ratings|", "")):
        movielens(path)
    data = movielens(path, bad_rows="quarantine")
    assert data.ingestion.quarantine.rows == 1


def test_what_is_not_movielens(tmp_path):
    (tmp_path / "broken.zip").write_bytes(b"PK no")
    with pytest.raises(BadInput, match=r"broken\.zip is no sound zip file"):
        movielens(str(tmp_path / "broken.zip"))
    with pytest.raises(BadInput, match=r"holds none of ratings\.dat, ratings\.csv, u\.data"):
        movielens(folder(tmp_path, {"README": b""}))
    with pytest.raises(BadInput, match=r"does not exist. Set dataset\.path"):
        movielens(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("year", REVIEWS)
def test_amazon_reviews_of_every_edition(tmp_path, year):
    lines = [json.dumps(row) for row in REVIEWS[year]] + ["{broken", "[1]", '{"overall": 3}']
    reviews = gzip.compress("\n".join(lines).encode())
    products = gzip.compress((METADATA[year] + "\n{'asin': oops}\n").encode())
    settings = {
        "format": "amazon",
        "interactions": write(tmp_path, "CDs_and_Vinyl.json.gz", reviews),
        "items": write(tmp_path, "meta_CDs_and_Vinyl.json.gz", products),
        "columns": {"text": ["brand", "store"]},
    }
    with pytest.raises(BadInput, match=r"CDs_and_Vinyl\.json\.gz, row 2: it is not a JSON object"):
        load(settings)
    data = load({**settings, "bad_rows": "quarantine"})
    assert rows(data) == [("A3EBHHCZO6V2A4", "5555991584", 5.0, 1000339200)]
    artist = "" if year == 2014 else " – Enya"
    assert catalogue(data) == {
        "5555991584": (f"Memory of Trees, it's{artist}", None, ["New Age", "Celtic"])
    }
    assert dropped(data) == {
        ("bad_rows", "it is not a JSON object"): 2,
        ("bad_rows", "user_id is empty"): 1,
    }
    assert data.ingestion.items[0].rows == 1


def test_amazon_titles_that_are_scripts_are_no_titles(tmp_path):
    products = [
        {"asin": "a", "title": "var aPageStart = (new Date()).getTime();", "category": []},
        {"asin": "b", "title": "", "brand": "Enya"},
    ]
    data = load(
        {
            "interactions": write(tmp_path, "r.json", json.dumps(REVIEWS[2018][0])),
            "items": write(tmp_path, "m.json", "\n".join(map(json.dumps, products))),
            "columns": {"text": ["brand"]},
        }
    )
    assert catalogue(data)["a"][0] is None
    assert catalogue(data)["b"][0] == "Enya"


READY = sorted((PROJECT_ROOT / "configs" / "datasets").glob("*.yaml"))


@pytest.mark.parametrize("path", READY, ids=[path.stem for path in READY])
def test_ready_configurations(path):
    pipeline = load_configuration(path)
    assert pipeline.experiment == path.stem
    if "cds" in path.stem:
        assert (pipeline.profiles.prompt, pipeline.item_profiles.prompt) == (
            "user-music",
            "item-music",
        )
        assert pipeline.dataset.items.startswith("https://")


def test_every_ready_configuration_is_there():
    assert len(READY) == 12


@pytest.fixture
def store(httpserver, tmp_path):
    """A server of one file that honours ranges and keeps what was asked for."""
    server = Store((tmp_path / "ml.zip", packed(tmp_path, ML_1M))[0].read_bytes())
    httpserver.expect_request("/ml.zip").respond_with_handler(server)
    server.url = httpserver.url_for("/ml.zip")
    return server


class Store:
    def __init__(self, content: bytes) -> None:
        self.content, self.version, self.url = content, "1", ""
        self.ranges: list[tuple[int, int]] = []
        self.breaks_at: int | None = None
        self.heals_after = 1_000

    def __call__(self, request: Request) -> Response:
        headers = {"Accept-Ranges": "bytes", "ETag": self.version}
        if request.method == "HEAD":
            return Response(headers={**headers, "Content-Length": str(len(self.content))})
        asked = request.range.ranges[0] if request.range else (0, None)
        start, stop = asked[0], min(asked[1] or len(self.content), len(self.content))
        self.ranges.append((start, stop))
        if self.breaks_at is not None and stop > self.breaks_at and self.heals_after:
            self.heals_after -= 1
            return Response("gone", 503)
        body = self.content[start:stop]
        where = f"bytes {start}-{stop - 1}/{len(self.content)}"
        return Response(body, 206, {**headers, "Content-Range": where})


def test_a_url_is_fetched_once(store):
    for _ in range(2):
        assert len(rows(movielens(store.url))) == 3
    covered = sorted(store.ranges)
    assert covered[0][0] == 0
    assert sum(stop - start for start, stop in covered) == len(store.content)


def test_housekeeping_keeps_what_was_downloaded(store, data_dir):
    from tasks.storage.garbage_collection import sweep

    movielens(store.url)
    abandoned = data_dir / "scratch" / "killed" / "scratch.duckdb"
    abandoned.parent.mkdir()
    abandoned.touch()
    for path in data_dir.rglob("*"):
        os.utime(path, (0, 0))
    removed = {removal.path for removal in sweep(keep_days=1, keep_count=1).removed}
    assert "scratch/killed/scratch.duckdb" in removed
    (packed_file,) = (data_dir / "artifacts" / "raw").glob("*.zip")
    assert packed_file.relative_to(data_dir).as_posix() not in removed


@pytest.fixture
def impatient(monkeypatch):
    """Small pieces, and no waiting before the next attempt."""
    monkeypatch.setattr("tasks.dataset.downloads.CHUNK", 100)
    monkeypatch.setattr("tasks.dataset.downloads._complete.retry.wait", wait_none())


@pytest.mark.usefixtures("impatient")
def test_a_connection_that_breaks_is_taken_up_again(store):
    store.breaks_at, store.heals_after = 250, 2
    assert len(rows(movielens(store.url))) == 3
    assert [part for part in store.ranges if part[0] == 0] == [(0, 100)]


@pytest.mark.usefixtures("impatient")
def test_a_download_goes_on_where_it_stopped(store, data_dir):
    store.breaks_at = 250
    with pytest.raises(BadInput, match=r"could not be fetched.*200 bytes are kept\. Run again"):
        movielens(store.url)
    store.breaks_at, store.ranges = None, []
    assert len(rows(movielens(store.url))) == 3
    assert min(start for start, _ in store.ranges) == 200
    assert not list((data_dir / "downloads").glob("*.part"))


@pytest.mark.usefixtures("impatient")
def test_a_file_that_changed_meanwhile_is_begun_anew(store):
    store.breaks_at = 250
    with pytest.raises(BadInput, match="could not be fetched"):
        movielens(store.url)
    store.breaks_at, store.version, store.ranges = None, "2", []
    assert len(rows(movielens(store.url))) == 3
    assert min(start for start, _ in store.ranges) == 0


def test_a_checksum_is_verified(store):
    with pytest.raises(BadInput, match=r"ml\.zip has sha256 [0-9a-f]{64}, not 0000"):
        movielens(store.url, sha256={"path": "0" * 64})
    from hashlib import sha256

    pinned = {"path": sha256(store.content).hexdigest()}
    assert len(rows(movielens(store.url, sha256=pinned))) == 3


def test_urls_that_hold_nothing(httpserver):
    httpserver.expect_request("/none.zip").respond_with_data("no", status=404)
    with pytest.raises(BadInput, match=r"dataset.path: there is no http.*name a local copy"):
        movielens(httpserver.url_for("/none.zip"))
    with pytest.raises(BadInput, match=r"needs a package|could not be fetched"):
        movielens("nosuch://bucket/ml.zip")
    with pytest.raises(BadInput, match=r"cannot be reached .*name a local copy"):
        movielens("http://127.0.0.1:9/ml.zip")


def test_files_inside_a_folder_and_atomic_files_can_be_pinned_too(tmp_path):
    wrong = {"interactions": "0" * 64}
    with pytest.raises(BadInput, match=r"dataset\.interactions: ratings\.dat in .* has sha256"):
        movielens(folder(tmp_path, ML_1M), sha256=wrong)
    with pytest.raises(BadInput, match=r"dataset\.interactions: .*ml-100k\.inter has sha256"):
        load({"name": "ml-100k", "sha256": wrong})
