"""Why a request brought no answer, and whom that concerns: one prompt, or every request.

A refusal (400, 413, 422 and the like) concerns

- the prompt, if it names a content filter;
- the prompt's length, if it names the context, or the body is too large: a shorter history helps;
- every request, if it names the model or a parameter, and any other status below 500;
- nobody that can be told from its words otherwise ("unclear"): the run then goes by whether other
  prompts are answered.
"""

import re
from typing import Any, Literal, NamedTuple

from models.llm.completion import error_in, parsed, words_of

Scope = Literal["prompt", "length", "run", "unclear", "passing"]
TOO_LONG = "longer than the model's context"

_PASSING = {408, 409, 424, 425, 429, 499}
_OF_A_PROMPT = {400, 403, 413, 422, 451}
_PARAMETERS = ("temperature", "max_tokens", "max_completion_tokens", "seed", "response_format")
_LONG = re.compile(
    r"context[ _-]?(?:length|window|size)|exceed_context|string_above_max_length"
    r"|reduce the (?:length|prompt)|too many (?:input )?tokens"
    r"|\b(?:prompt|input|message|request|text)s?\b[^.]{0,60}(?:too long|too large|exceed)"
    r"|tokens?\b[^.]{0,60}(?:exceed|must be <)"
)
_LIMIT_OF_ANSWERS = re.compile(r"at most \d+ (?:completion|output) tokens")
_FILTERED = re.compile(
    r"content[ _-]?(?:filter|policy|management|exists)|responsibleai|moderat|flagged|safety"
    r"|inappropriate|data_inspection|invalid_prompt|sensitive|harmful"
)
_OF_THE_MODEL = re.compile(
    r"(?:invalid|unknown|unsupported|no such) model|model_not_found"
    r"|\bmodel\b[^.]{0,80}(?:not found|not exist|unknown|not available|not a valid)"
)


class Failure(NamedTuple):
    """Why a question has no answer.

    Attributes:
        reason: kept with the profile that is missing: `HTTP 503`, then what the endpoint said.
        scope: whom it concerns.
        status: of HTTP; None where there was an answer, or none at all.
        parameter: the one that a refusal names.
    """

    reason: str
    scope: Scope = "prompt"
    status: int | None = None
    parameter: str | None = None


def failure_of(status: int, content: bytes, mask: Any = str) -> Failure:
    """Judge an HTTP error by its status and its body; `mask` hides the key in its words."""
    error, words = error_in(parsed(content)) or {}, mask(words_of(content))
    named = " ".join(
        str(error.get(key)) for key in ("code", "type", "innererror") if error.get(key)
    )
    text, param = f"{words} {named}".lower(), str(error.get("param") or "")
    parameter = next((name for name in _PARAMETERS if param == name or _names(name, text)), None)
    scope = _scope(status, text, param, parameter)
    label = {"length": TOO_LONG, "prompt": "refused"}.get(scope, f"HTTP {status}")
    return Failure(f"{label}: {words}" if words else label, scope, status, parameter)


def _scope(status: int, text: str, param: str, parameter: str | None) -> Scope:
    if "insufficient_quota" in text or status == 402:
        return "run"
    is_long = bool(_LONG.search(text)) and not _LIMIT_OF_ANSWERS.search(text)
    if status == 413 or (status == 429 and "request too large" in text):
        return "length"
    if is_long and (status in {400, 422} or status >= 500):
        return "length"
    if status in _PASSING or status >= 500:
        return "passing"
    if status == 451 or (status in _OF_A_PROMPT and _FILTERED.search(text)):
        return "prompt"
    of_the_run = parameter or param == "model" or _OF_THE_MODEL.search(text)
    return "run" if of_the_run or status not in {400, 422} else "unclear"


def _names(parameter: str, text: str) -> bool:
    """Tell a parameter, which an error quotes unless it has an underscore, from a word."""
    before = "(?<![a-z_])" if "_" in parameter else "['\"`.]"
    return re.search(rf"{before}{parameter}(?![a-z_])", text) is not None


def status_of(error: dict[str, Any]) -> int:
    """Return the HTTP status that an error inside an answer of status 200 stands for."""
    for key in ("status", "code", "status_code"):
        value = error.get(key)
        number = (
            int(value) if isinstance(value, str) and re.fullmatch("[45][0-9]{2}", value) else value
        )
        if isinstance(number, int) and 400 <= number < 600:
            return number
    named = f"{error.get('code')} {error.get('type')} {error.get('message')}".lower()
    return 429 if re.search(r"rate.?limit|too many requests|resource_exhausted", named) else 500
