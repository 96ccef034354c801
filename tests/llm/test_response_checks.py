"""What an answer must be: whole, willing, of the shape asked for, and not a loop."""

import json

import pytest
from pydantic import ValidationError

from models.config import Profiles
from models.llm.response_checks import is_refusal, judge, repeats_itself, response_format
from tasks.llm import answer_run
from tests.support.fake_llm import completion, config, reasons, run, texts

pytest_plugins = ("tests.support.fake_llm",)
FIELDS = {"likes": "what they like", "era": "of which time", "never_watches": "what they avoid"}
TEXTS = {"likes": "Slow  films.\nAnd dogs.", "era": "The 1950s.", "never_watches": "War films."}


def said(content: str | None, finish_reason: str = "stop", **settings):
    message = {"role": "assistant", "content": content}
    answer = {"choices": [{"message": message, "finish_reason": finish_reason}]}
    return judge(answer, Profiles.model_validate(settings))


REFUSALS = [
    "I'm sorry, but I can't assist with that.",
    "I’m sorry, I can’t help with that request.",
    "Sorry, I cannot provide a profile of this person.",
    "I cannot create a profile based on these films.",
    "Unfortunately, I am unable to generate this. Please give me more films.",
    "As an AI language model, I cannot describe real people.",
    '"I\'m not able to provide that."',
    "I can't help.",
]


@pytest.mark.parametrize("text", REFUSALS)
def test_a_refusal_is_known_by_its_opening(text):
    assert is_refusal(text)
    assert said(text) == (None, "refused")


ORDINARY = [
    "Loves slow films and can't stand musicals.",
    "I can't stand musicals, but I love slow films.",
    "I can't help but love romantic comedies.",
    "I'm sorry to say that horror leaves me cold; drama does not.",
    "Sorry dramas and tragic endings are what this viewer seeks.",
    "I cannot get enough of westerns, and I will not watch war films.",
    "Unfortunately for horror, this viewer avoids it.",
    "Enjoys films such as “I Can't Help Myself” and “Sorry, Wrong Number”.",
    "The viewer says: I can't provide for everyone, and likes films about that.",
    "As an AI enthusiast, this viewer enjoys science fiction.",
    "I cannot describe how " + "very " * 90 + "much I like films.",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_profiles_are_no_refusals(text):
    assert not is_refusal(text)
    assert said(text)[0] == text


@pytest.mark.parametrize(
    "text",
    [
        "The user likes drama. " * 5,
        "Begins well, with thrillers. " + "He likes drama, " * 20,
        "This viewer enjoys films\n" * 6,
    ],
)
def test_a_loop_is_of_no_use(text):
    assert said(text) == (None, "repeats itself")


@pytest.mark.parametrize(
    "text",
    [
        "The user likes drama. " * 4,
        "Drama, drama, drama, drama, drama, drama.",
        "Likes it a lot. " * 5 + "".join(f"Also film number {n}. " for n in range(5)),
        "Loves A. Loves B. Loves C. Loves D. Loves E. Loves F.",
        "",
    ],
)
def test_what_repeats_a_little_is_no_loop(text):
    assert not repeats_itself(text)


def test_length_is_counted_in_words_where_a_limit_is_set():
    assert said("one two three", max_words=3) == ("one two three", None)
    assert said("one two three four", max_words=3) == (None, "longer than max_words")
    assert said("word " * 1000)[1] is None


def test_fields_become_lines_in_their_order():
    backwards = json.dumps(dict(reversed(TEXTS.items())))
    joined = "Likes: Slow films. And dogs.\nEra: The 1950s.\nNever watches: War films."
    assert said(backwards, fields=FIELDS) == (joined, None)
    assert said(f"```json\n{backwards}\n```", fields=FIELDS) == (joined, None)
    assert said(f"```\n{backwards}```", fields=FIELDS) == (joined, None)
    without = json.dumps(TEXTS | {"era": " "})
    assert said(without, fields=FIELDS) == (joined.replace("Era: The 1950s.\n", ""), None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Likes slow films.", "malformed answer"),
        ('{"likes": "a", "era": "b"', "malformed answer"),
        (json.dumps({"likes": "a", "era": "b"}), "malformed answer"),
        (json.dumps(TEXTS | {"more": "d"}), "malformed answer"),
        (json.dumps(TEXTS | {"era": ["1950s"]}), "malformed answer"),
        (json.dumps(TEXTS | {"era": None}), "malformed answer"),
        (json.dumps([TEXTS]), "malformed answer"),
        ('"text"', "malformed answer"),
        ("Here it is:\n" + json.dumps(TEXTS), "malformed answer"),
        ("", "empty"),
        (json.dumps(dict.fromkeys(TEXTS, " ")), "empty"),
        ("I'm sorry, but I can't help with that.", "refused"),
        (json.dumps(dict.fromkeys(TEXTS, "He likes a drama. " * 9)), "repeats itself"),
    ],
)
def test_an_answer_of_another_shape_is_of_no_use(text, problem):
    assert said(text, fields=FIELDS) == (None, problem)


def test_the_schema_asks_for_exactly_the_fields():
    assert response_format({}) is None
    shape = response_format(FIELDS)
    assert shape is not None
    assert shape["type"] == "json_schema"
    assert shape["json_schema"]["strict"] is True
    schema = shape["json_schema"]["schema"]
    assert schema["required"] == list(FIELDS)
    assert schema["properties"]["era"] == {"type": "string", "description": "of which time"}
    assert schema["additionalProperties"] is False
    with pytest.raises(ValidationError, match="'two words' is no name"):
        Profiles(fields={"two words": "x"})


@pytest.mark.usefixtures("data_dir")
def test_structure_is_asked_for_and_another_order_is_another_question(llm):
    llm.default = lambda _: completion(json.dumps(TEXTS))
    llm.script = {"Heat": [lambda _: completion("no JSON"), lambda _: completion('{"likes": 1}')]}
    plain = config(llm)
    asked = plain.model_copy(update={"fields": FIELDS})
    result = run(asked, "Heat")
    assert texts(result)["user-0"].startswith("Likes: Slow films.")
    assert [request["seed"] for request in llm.requests] == [7, 8, 9]
    assert llm.requests[0]["response_format"] == response_format(FIELDS)
    run(asked, "Heat")
    assert len(llm.requests) == 3
    other = plain.model_copy(update={"fields": dict(reversed(FIELDS.items()))})
    assert other.digest() != asked.digest()
    assert texts(run(other, "Heat"))["user-0"].startswith("Never watches: War films.")
    assert len(llm.requests) == 4
    run(plain, "Heat")
    assert "response_format" not in llm.requests[4]


@pytest.mark.usefixtures("data_dir")
def test_lasting_nonsense_is_missing_with_its_reason(llm):
    nonsense = {
        "Heat": completion("I'm sorry, but I can't assist with that."),
        "Fargo": completion("The user likes drama. " * 9),
        "Alien": completion("many words here"),
    }
    llm.script = {title: [lambda _, r=reply: r] * 9 for title, reply in nonsense.items()}
    llm.default = lambda _: completion("Fine.")
    settings = config(llm, max_missing=0.75).model_copy(update={"max_words": 2})
    result = run(settings, *nonsense, "Brazil")
    assert reasons(result) == ["refused", "repeats itself", "longer than max_words", None]
    assert llm.titles() == dict.fromkeys(nonsense, answer_run.ATTEMPTS) | {"Brazil": 1}


@pytest.mark.usefixtures("data_dir")
def test_a_lower_limit_asks_again_only_for_what_is_too_long_now(llm):
    llm.script = {"Heat": [lambda _: completion("three words long")]}
    llm.default = lambda _: completion("Two words")
    run(config(llm), "Heat", "Fargo")
    shorter = config(llm).model_copy(update={"max_words": 2})
    assert texts(run(shorter, "Heat", "Fargo")) == {"user-0": "Two words", "user-1": "Two words"}
    assert llm.titles() == {"Heat": 2, "Fargo": 1}
    run(config(llm), "Heat", "Fargo")
    assert len(llm.requests) == 3
