"""Guess a text's encoding from the whole file, and say what the guess rests on."""

import codecs
import re
from collections.abc import Callable, Iterable, Iterator

from charset_normalizer import from_bytes

from models.errors import BadInput

_MARKS = (
    # UTF-32's begins with UTF-16's.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LINES = 2000
_WESTERN = re.compile("cp125[02478]|iso8859_|latin|mac_|hp_roman|cp437|cp77|cp85|cp86[0135]")
"""Encodings of Latin letters, between which a detector cannot tell: most letters agree."""
_CENTRAL = r"[^\W\d_][¹³¿±¶¾]|[³£±¶][a-z]|[ìù][a-z]|ø[íìýè]|[íìý]ø|[aeiouy]è[aeiouíáý]|õ(?!e)"
_TURKISH = r"[a-z]ý[a-z]|[a-z]þ|ð[aeiýr]|Ý[a-z]"
"""What Central European and Turkish letters look like read as cp1252, which has few such words."""
_SHARE = 0.1
_MOSTLY = 0.9


def detect_encoding(source: Callable[[], Iterable[bytes]], file: str) -> tuple[str, str]:
    """Guess an encoding that decodes the whole file, with the evidence.

    Raises:
        BadInput: if nothing decodes the file, or only some lines are not UTF-8.
    """
    start = next(iter(source()), b"")
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding, "the file begins with its byte order mark"
    if start[1:200:2].count(0) > 0.4 * len(start[1:200:2]):
        return "utf-16-le", "every second byte is zero"
    odd, n_fine, first = _not_utf8(source)
    if not odd:
        return "utf-8", "the whole file is"
    if n_fine > _MOSTLY * (n_fine + len(odd)):
        raise BadInput(
            f"{file}, row {first}: it is not UTF-8, unlike the rest of the file. Mend the row."
        )
    for encoding in _candidates(odd):
        if _decodes(source, encoding):
            seen = odd[0].decode(encoding).strip()[:60]
            return encoding, f"by charset-normalizer; row {first} then reads {seen}"
    raise BadInput(
        f"{file}, row {first}: neither UTF-8 nor any one other encoding. Save the file as UTF-8."
    )


def _not_utf8(source: Callable[[], Iterable[bytes]]) -> tuple[list[bytes], int, int]:
    """Distinct lines that are not UTF-8, how many lines have letters that are, the first's row."""
    odd: dict[bytes, None] = {}
    n_fine = first = row = 0
    for lines in _lines(source):
        if b"".join(lines).isascii():
            row += len(lines)
            continue
        for line in lines:
            row += 1
            if line.isascii():
                continue
            try:
                line.decode()
                n_fine += 1
            except UnicodeDecodeError:
                first = first or row
                if len(odd) < _LINES:
                    odd[line] = None
    return list(odd), n_fine, first


def _lines(source: Callable[[], Iterable[bytes]]) -> Iterator[list[bytes]]:
    rest = b""
    for block in source():
        *lines, rest = (rest + block).split(b"\n")
        yield lines
    yield [rest]


def _candidates(lines: list[bytes]) -> list[str]:
    """Encodings of some lines that are not ASCII, the likeliest first."""
    text = b"\n".join(lines)
    found = [match.encoding for match in from_bytes(text)]
    if found and not _WESTERN.match(found[0]) and not _mixes_scripts(text.decode(found[0])):
        return [*found, "cp1252", "latin-1"]
    words = _odd_words(text.decode("cp1252", "replace"))
    central, turkish = (
        sum(bool(re.search(trace, word)) for word in words) > _SHARE * len(words)
        for trace in (_CENTRAL, _TURKISH)
    )
    if central:
        # ISO 8859-2 has no letters where cp1250 has š, ž, ś and ź.
        windows = any(re.search("[ŠšŽžŒœŸ]", word) for word in words)
        return ["cp1250" if windows else "iso8859_2", "cp1252", *found]
    return [*(["cp1254"] if turkish else []), "cp1252", "latin-1", *found]


def _odd_words(text: str) -> list[str]:
    return [word for word in re.split(r"[\s,;|:\"/]+", text) if not word.isascii()]


def _mixes_scripts(text: str) -> bool:
    """Whether most words hold Latin letters beside those of another script, as no language does."""
    words = _odd_words(text)
    return 2 * sum(bool(re.search("[A-Za-z]", word)) for word in words) > len(words)


def _decodes(source: Callable[[], Iterable[bytes]], encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for block in source():
            decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeError:
        return False
    return True
