"""What makes an LLM's answer a profile: complete, not a refusal, of the shape asked for.

An answer is of no use if it is

- empty, no text (a tool call), or cut off at max_tokens;
- a model's reasoning that never came to an answer;
- refused: marked so by the endpoint, or a short text (at most `LONGEST_REFUSAL` words) that opens
  with "I can't …" and the like, perhaps after an apology, where the verb that follows names an
  assistant's work ("provide", "help with", "create"). "I can't stand musicals" is a profile;
- malformed: with `profiles.fields`, no JSON object of exactly these texts; a Markdown fence around
  it does not matter;
- a loop: one clause of at least three words, `LOOP` times or more, and most of the text;
- longer than `profiles.max_words`.

Of what is left, reasoning before the answer and talk to whoever asked are dropped
(`models.llm.profile_text`).
"""

import json
import re
from collections import Counter
from typing import Any

from pydantic import TypeAdapter, ValidationError

from models.config import Profiles
from models.llm.completion import MALFORMED, text_of, words_of
from models.llm.profile_text import without_reasoning, without_talk

LONGEST_REFUSAL = 80
LOOP = 5
_SHORTEST_CLAUSE = 3

_APOLOGY = (
    r"(?:(?:sorry|apologies|unfortunately|i(?:'m| am) sorry|i(?: do)? apologi[sz]e"
    r"|as an ai(?: language model| assistant)?)\b[ ,.;:!–—-]*(?:but )?)*"
)
_INABILITY = (
    r"i(?: can't| cannot| can not| won't|(?: am|'m) (?:unable|not able|not allowed) to"
    r"|(?: will|'ll) not be able to) "
)
_ASSISTANCE = (
    r"(?:assist|provide|create|write|generate|produce|fulfill?|comply|complete|continue|engage"
    r"|answer|describe|summari[sz]e|make|do (?:that|this|so)|help(?: you)?(?: with| in|[.!?]|$))"
)
_REFUSAL = re.compile(_APOLOGY + _INABILITY + _ASSISTANCE)
_FENCED = re.compile(r"```\w*\s*\n(.*?)\n?\s*```", re.DOTALL)
_CLAUSE_END = re.compile(r"[.!?;,\n]+")
_TEXTS = TypeAdapter(dict[str, str])
_INSTEAD = "refusal", "tool_calls", "reasoning_content"
_FILTERED = {"content_filter", "safety", "sensitive", "prohibited_content", "recitation", "refusal"}
_CUT = {"length", "max_tokens", "model_length"}


def response_format(fields: dict[str, str]) -> dict[str, Any] | None:
    """Build the part of a request that asks for JSON with these fields; None for plain text."""
    if not fields:
        return None
    properties = {name: {"type": "string", "description": text} for name, text in fields.items()}
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(fields),
        "additionalProperties": False,
    }
    return {
        "type": "json_schema",
        "json_schema": {"name": "profile", "strict": True, "schema": schema},
    }


def judge(completion: Any, config: Profiles) -> tuple[str | None, str | None]:
    """Take the profile from a chat completion, or say why there is none (see the module docstring).

    `completion` is the endpoint's JSON, whatever it is.
    """
    try:
        choice = completion["choices"][0]
        message, finish_reason = choice["message"], str(choice.get("finish_reason")).lower()
        text, (refusal, calls, thought) = (
            text_of(message.get("content")),
            map(message.get, _INSTEAD),
        )
    except (AttributeError, IndexError, KeyError, TypeError):
        return None, MALFORMED
    if error := choice.get("error"):
        return None, f"{MALFORMED}: {words_of(json.dumps(error).encode())}"
    if refusal or finish_reason in _FILTERED:
        return None, "refused"
    if finish_reason in _CUT:
        return None, "truncated at max_tokens"
    if text is None:
        return None, MALFORMED
    answer = without_reasoning(text)
    if answer is None or (thought and not answer):
        return None, "reasoning without an answer"
    if not answer and calls:
        return None, "a tool call instead of a text"
    return _profile(answer, config)


def _profile(text: str, config: Profiles) -> tuple[str | None, str | None]:
    if is_refusal(text):
        return None, "refused"
    if config.fields and text:
        joined = _joined(text, config.fields)
        if joined is None:
            return None, MALFORMED
        text = joined
    else:
        text = without_talk(text)
    faults = {
        "empty": not any(map(str.isalnum, text)),
        "refused": is_refusal(text),
        "repeats itself": repeats_itself(text),
        "longer than max_words": is_too_long(text, config.max_words),
    }
    problem = next((name for name, is_so in faults.items() if is_so), None)
    return (None, problem) if problem else (text, None)


def is_refusal(text: str) -> bool:
    """True if a text as a whole says that the model will not answer."""
    words = text.lower().replace("’", "'").strip(" \t\n\"'*").split()
    return len(words) <= LONGEST_REFUSAL and _REFUSAL.match(" ".join(words)) is not None


def repeats_itself(text: str) -> bool:
    """True if a text is mostly one clause, over and over."""
    clauses = [" ".join(clause.lower().split()) for clause in _CLAUSE_END.split(text)]
    clauses = [clause for clause in clauses if clause.count(" ") + 1 >= _SHORTEST_CLAUSE]
    if not clauses:
        return False
    ((_, most),) = Counter(clauses).most_common(1)
    return most >= LOOP and 2 * most > len(clauses)


def is_too_long(text: str, max_words: int | None) -> bool:
    """True if a text has more words than allowed; None allows any number."""
    return max_words is not None and len(text.split()) > max_words


def _joined(text: str, fields: dict[str, str]) -> str | None:
    """The fields as lines `Name: text` in their order, without empty ones; None if malformed."""
    fenced = _FENCED.fullmatch(text)
    try:
        values = _TEXTS.validate_json(fenced[1] if fenced else text, strict=True)
    except ValidationError:
        return None
    if values.keys() != fields.keys():
        return None
    lines = ((name, " ".join(values[name].split())) for name in fields)
    return "\n".join(
        f"{name.replace('_', ' ').capitalize()}: {value}" for name, value in lines if value
    )
