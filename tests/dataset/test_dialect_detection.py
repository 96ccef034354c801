"""Guesses about files of others: encodings, dialects, columns, times."""

import pytest

from models.dataset.column_detection import columns, is_counts
from models.dataset.dialect_detection import detect, quoting_of
from models.dataset.text_encoding import detect_encoding
from models.dataset.time_formats import time_unit
from models.errors import BadInput

TITLES = {
    "gbk": ["霸王别姬", "活着", "让子弹飞", "我不是药神"],
    "big5": ["悲情城市", "牯嶺街少年殺人事件", "藍色大門"],
    "shift_jis": ["千と千尋の神隠し", "七人の侍", "もののけ姫"],
    "euc_jp": ["千と千尋の神隠し", "七人の侍", "もののけ姫"],
    "euc_kr": ["기생충", "올드보이", "살인의 추억"],
    "cp1251": ["Сталкер", "Андрей Рублёв", "Ирония судьбы"],
    "koi8_r": ["Сталкер", "Андрей Рублёв", "Ирония судьбы"],
    "cp1250": ["Příběhy obyčejného šílenství", "Účastníci zájezdu", "Dzień świra"],
    "iso8859_2": ["Příběhy obyčejného šílenství", "Účastníci zájezdu", "Želary"],
    "cp1253": ["Ο θίασος", "Η αιωνιότητα και μια μέρα"],
    "cp1254": ["Kış Uykusu", "Bir Zamanlar Anadolu'da", "Eşkıya"],
    "latin-1": ["Amélie", "Kød", "Père & fils", "Mañana, ¿sí?", "Þrúður"],
    "cp1252": ["It’s – à bout de souffle", "Cœur", "Überfall"],
    "utf-16": ["Сталкер", "기생충"],
    "utf-16-le": ["plain"],
    "utf-32": ["Сталкер"],
    "utf-8-sig": ["Сталкер"],
}


def source(content: bytes):
    return lambda: iter([content] if content else [])


@pytest.mark.parametrize("encoding", TITLES)
def test_text_reads_as_it_was_written(encoding):
    titles = TITLES[encoding]
    text = "id,title,genres\n" + "".join(
        f"{n},{title},Drama\n" for n, title in enumerate(titles * 8)
    )
    content = text.encode(encoding)
    guessed, evidence = detect_encoding(source(content), "f.csv")
    assert content.decode(guessed).lstrip("\ufeff") == text
    assert evidence


def test_a_few_rows_of_another_encoding_are_no_encoding():
    content = "".join(f"{n},Café\n" for n in range(50)).encode() + b"51,Caf\xe9\n"
    with pytest.raises(BadInput, match=r"f\.csv, row 51: it is not UTF-8, unlike the rest"):
        detect_encoding(source(content), "f.csv")


DIALECTS = {
    "backslashes": ('"id";"title"\n1;"The \\"Blue\\"; House"\n"2";"x"\n', ";", "backslash"),
    "doubled": ('id,title\n1,"a ""b"", c"\n2,x\n', ",", "double"),
    "backslash at an end": ('id,title\n1,"C:\\"\n2,"a, b"\n', ",", "double"),
    "inches": ('id\ttitle\n1\t12" Mix\n2\t"Weird" Al\n', "\t", "none"),
    "several lines": ('id,title,text\n1,a,"x,\ny"\n2,b,"x ""q""\ny"\n', ",", "double"),
    "bars beside tabs": ("1\tDrama|War|Sci-Fi\n2\tDrama|War|Action\n", "\t", "none"),
    "bars in the values": ("id,genres\n1,A|B|C\n2,A|B|C\n", ",", "none"),
    "decimal commas": ("1;27;3,5;150\n1;28;4,0;151\n", ";", "none"),
    "colons": ("1::Heat, (1995)::A|B\n2::Up, (2009)::A\n", "::", "none"),
    "spaces": ("1 10 5\n2 11 4\n", " ", "none"),
    "a late quote": ("id,title\n" + "1,x\n" * 300 + '2,"a, b"\n', ",", "double"),
}


@pytest.mark.parametrize(("text", "mark", "quoting"), DIALECTS.values(), ids=DIALECTS)
def test_the_dialect_that_refuses_fewest_wins(text, mark, quoting):
    found = detect(source(text.encode()), "f.csv")
    assert (found.dialect.delimiter, quoting_of(found.dialect)) == (mark, quoting)
    assert found.refused == 0


def test_what_other_quotings_refuse_is_said():
    text = 'id\ttitle\n1\t12" Mix\n2\tx\n'
    (quoting,) = [
        one for one in detect(source(text.encode()), "f").guesses if one.setting == "quoting"
    ]
    assert "double with tab refuses the file (f, row 2: a quote opens" in quoting.evidence


@pytest.mark.parametrize(
    "name",
    [
        "Book-Rating",
        "user_rating",
        "grade",
        "userScore",
        "rating_value",
        "num_stars",
        "plays",
        "x9",
    ],
)
def test_a_rating_is_found_beside_known_ids(name):
    rows = [[f"u{n % 9}", f"shop {n % 7}", str(n % 5 + 1)] for n in range(50)]
    for ids in (["user_id", "item_id"], ["who", "what"]):
        found = columns([*ids, name], rows, ("user", "item", "rating", "timestamp"))
        assert [guess.value for guess in found] == [*ids, name, None]


def test_columns_are_no_ids_where_they_measure_or_number():
    rows = [[str(n), f"{n % 5}", "2010-10-02T01:55:27Z", f"30.{n}", f"{n % 7}"] for n in range(50)]
    found = columns([str(n) for n in range(5)], rows, ("user", "item", "rating", "timestamp"))
    assert [guess.value for guess in found] == ["1", "4", None, "2"]


def test_a_column_whose_values_do_not_fit_is_left_out_with_the_reason():
    rows = [["u", "i", "good", "yesterday"]] * 3
    found = columns(["user", "item", "rating", "date"], rows, ("rating", "timestamp"))
    assert [guess.value for guess in found] == [None, None]
    assert "rating is called so, but good is no number" in found[0].evidence
    assert "no known format of times fits yesterday" in found[1].evidence


TIMES = {
    "1500000000": "s",
    "1500000000123": "ms",
    "1611000000000000": "us",
    "1611000000000000000": "ns",
    "2021-03-01 10:00:00+09:00": "iso",
    "2010-10-02T01:55:27Z": "iso",
    "03/14/2021 10:00": "%m/%d/%Y %H:%M",
    "14/03/2021": "%d/%m/%Y",
    "14.03.2021 10:00:01": "%d.%m.%Y %H:%M:%S",
    "3/14/21 1:05 PM": "%m/%d/%y %I:%M %p",
    "Fri Nov 25 10:00:00 -0800 2016": "%a %b %d %H:%M:%S %z %Y",
    "14 Mar 2021": "%d %b %Y",
    "March 14, 2021": "%B %d, %Y",
    "20210314": "%Y%m%d",
    "20210314101112": "%Y%m%d%H%M%S",
    "soon": None,
}


@pytest.mark.parametrize(("value", "unit"), TIMES.items())
def test_formats_of_times(value, unit):
    assert time_unit([value] * 3)[0] == unit


def test_an_order_of_day_and_month_that_both_fit_is_said():
    assert time_unit(["03/01/2021", "03/09/2021"])[0] == "%m/%d/%Y"
    assert "%d/%m/%Y fits as well" in time_unit(["03/01/2021", "03/09/2021"])[1]
    # One day that is no month decides, wherever it stands.
    assert time_unit(["03/01/2021"] * 99 + ["25/12/2021"])[0] == "%d/%m/%Y"


@pytest.mark.parametrize(
    ("name", "values", "counts"),
    [
        ("weight", [1, 5, 13, 96, 193, 1454, 94742], True),
        ("plays", [1, 2, 3], True),
        ("rating", [1, 2, 3, 4, 5], False),
        ("rating", [0, 40, 60, 70, 80, 90, 100], False),
        ("rating", [-9.5, 1.2, 400.5], False),
    ],
)
def test_counts_are_no_ratings(name, values, counts):
    assert is_counts(name, list(map(str, values))) is counts
