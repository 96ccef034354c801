"""What counts as a secret: one table, for what is refused in a setting and masked in a text."""

import base64
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote, unquote_plus

_KEYS = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:sk|pk|rk|gsk|xai|pplx|nvapi|or|lsv2)[-_](?=[\w-]*\d)[\w-]{16,}"  # LLM providers, Stripe
    r"|gh[pousr]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|hf_\w{16,}|r8_\w{16,}"
    r"|(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,}|AIza[\w-]{20,}|ya29\.[\w-]{10,}|xox[a-z]-[\w-]{10,}"
    r"|eyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?"  # a JSON web token
    r")|-----BEGIN [A-Z ]*KEY|(?i:\b(?:Bearer|Basic)[ +][\w.~+/=-]{8,})"
)
_ENDINGS = (
    "key", "token", "secret", "signature", "password", "passwd", "pwd", "passphrase", "jwt",
    "credential", "credentials", "authorization", "accesskeyid", "accessid", "keypairid", "hmac",
)  # fmt: skip
_NAMES = {"sig", "auth", "pass", "code", "sas", "policy", "session", "sessionid", "hdnts", "hdnea"}
_IDS = {"id", "file", "fileid", "persistentid", "doi", "revision", "commit", "etag", "export"}
"""Parameters whose values are long and random, yet public."""
_PAIR = re.compile(r"([?&#;])([^=&#;?\s]{1,100})=([^&#;\s'\"<>]*)")
_ASSIGNED = re.compile(r"(?<![\w.])(?!dotted\.key=value)([\w.%~-]{1,100})=([^\s&#;'\"<>]+)")
_URL = re.compile(
    r"((?:\b[A-Za-z][A-Za-z0-9+.-]*:)?(?:/{2,}|\\{2,})|\b[A-Za-z][A-Za-z0-9+.-]+:/)([^\s'\"<>]*)"
)
_BARE = re.compile(r"[^\s/\\@]{2,}:\S*@\S+|[^\s/\\@]+@[\w.-]+(?::\d+)?/\S*")
_PLACES = ("abfs", "abfss", "wasb", "wasbs", "sftp", "ssh", "hdfs")
"""Protocols in which the part before @ is a container or an account, not a secret by itself."""
_SHORTEST = 4
"""Shorter "keys", of servers that check none, would mask words at random."""
_ECHO = 8
"""So many characters of a key in a row are an echo of it."""


def is_secret_name(name: str) -> bool:
    """Whether a parameter or key of this name holds a secret: `X-Amz-Signature`, `api_key`."""
    plain = re.sub(r"[^a-z0-9]", "", unquote(name).lower())
    return plain in _NAMES or plain.endswith(_ENDINGS)


def looks_like_key(text: str) -> bool:
    """Whether a text is a key by its form: a known prefix, or long, random letters and digits."""
    return bool(_KEYS.search(text)) or any(map(_is_random, re.split(r"[-_.~:/ ]", text)))


def _is_random(word: str) -> bool:
    word = word.rstrip("=")
    kinds = sum(bool(re.search(kind, word)) for kind in ("[a-z]", "[A-Z]", "[0-9]"))
    return len(word) >= 20 and kinds > 1 and re.fullmatch(r"[\w+%]+", word) is not None


def credential_in(text: str) -> str | None:
    """Name the kind of credential that a setting holds; None if it holds none.

    Example:
        >>> credential_in("https://me:pw@host/v1")
        'a user name or password'
        >>> credential_in("https://host/ratings.csv?X-Amz-Signature=0123")
        'the parameter X-Amz-Signature'
    """
    for form in (text, unquote(unquote(text))):
        if any(_user_part(*match.groups()) for match in _URL.finditer(form)):
            return "a user name or password"
        if "://" not in form and _BARE.fullmatch(form.strip()):
            return "a user name or password"
        for _, name, value in _PAIR.findall(form):
            known = re.sub(r"[^a-z]", "", name.lower()) in _IDS
            if is_secret_name(name) or (not known and _is_random(unquote_plus(value))):
                return f"the parameter {name}"
        if _KEYS.search(form):
            return "a key"
    return None


def _user_part(protocol: str, rest: str) -> str:
    """The user name and password at the start of what follows a protocol; empty if none."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, at, _ = rest.rpartition("@")
    if not at:
        return ""
    if "@" in authority:
        plain = re.fullmatch(r"[^:@]*", authority.rpartition("@")[0])
        container = protocol.partition(":")[0].lower() in _PLACES and plain
        return "" if container else user
    # A password may hold a slash: what follows a host's colon is a port, and nothing else.
    return user if re.search(r":(?!\d*$)", re.sub(r"\[.*\]", "", authority)) else ""


def credentials_of(settings: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Place and kind of every credential in settings as written, keys of mappings included."""
    if isinstance(settings, dict):
        for key, value in settings.items():
            yield from credentials_of(str(key), f"{place or 'settings'}: a key")
            yield from credentials_of(value, f"{place}.{key}" if place else str(key))
    elif isinstance(settings, list | tuple | set):
        for item in settings:
            yield from credentials_of(item, place)
    elif isinstance(settings, str):
        kind = credential_in(settings)
        if kind:
            yield masked(place), kind


def masked(text: str, *keys: str) -> str:
    """Take credentials out of a text that is shown or kept.

    Secrets that are known, `keys`, go whole, encoded (base64, percent) and in parts.

    Example:
        >>> masked("no host in https://me:p@ss@host/v1?sig=ab")
        'no host in https://…@host/v1?sig=…'
    """
    for key in keys:
        text = _without(text, key)
    text = _URL.sub(_without_user, text)
    text = _ASSIGNED.sub(lambda m: f"{m[1]}=…" if is_secret_name(m[1]) else m[0], text)
    return _KEYS.sub("[key]", text)


def _without_user(match: re.Match[str]) -> str:
    protocol, rest = match.groups()
    user = _user_part(protocol, rest)
    return f"{protocol}…{rest[len(user) :]}" if user else match[0]


def _without(text: str, key: str) -> str:
    """Take a key out of a text: its encodings, `_ECHO` characters of it, `sk-ab***yz`."""
    if len(key) < _SHORTEST:
        return text
    forms = {key, quote(key, safe=""), repr(key)[1:-1]}
    for shift, cut in enumerate((0, 2, 3)):  # characters that a text before the key has a part in
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            whole = encode(bytes(shift) + key.encode()).decode().rstrip("=")
            forms.add(whole[cut:] if (shift + len(key.encode())) % 3 == 0 else whole[cut:-1])
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "[key]")
    starts = "|".join(re.escape(key[:n]) for n in range(len(key) - 1, 1, -1))
    ends = "|".join(re.escape(key[-n:]) for n in range(len(key) - 1, 1, -1))
    hidden = r"[*•x.…·]{2,}|…"
    text = re.sub(rf"(?:{starts})(?:{hidden})(?:{ends})?|(?:{hidden})(?:{ends})", "[key]", text)
    return _without_echo(text, key) if len(key) > _ECHO else text


def _without_echo(text: str, key: str) -> str:
    parts = {key[n : n + _ECHO] for n in range(len(key) - _ECHO + 1)}
    shown, n = list[str](), 0
    while n < len(text):
        end = n
        while text[end : end + _ECHO] in parts:
            end += 1
        shown.append("[key]" if end > n else text[n])
        n = end + _ECHO - 1 if end > n else n + 1
    return "".join(shown)
