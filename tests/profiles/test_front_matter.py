"""Settings at the top of a prompt's file: what they may say, and who goes before whom."""

import pytest
import yaml

from models.config import LLM, History
from models.errors import BadInput
from models.profiles.prompt_templates import Prompt, user_values
from tasks.config.pipeline_file import load
from tasks.config.prompt_file import FrontMatter, parse_prompt, prompt_of
from tasks.execution.cache_key import content

BODY = "{% block user %}{{ history | length }} items{% endblock %}\n"


def fronted(*lines: str, body: str = BODY) -> str:
    return "\n".join(["---", *lines, "---", body])


@pytest.fixture
def configured(tmp_path):
    """Load a configuration whose prompt is a file with the given text."""

    def load_with(prompt: str, *overrides: str, **profiles):
        (tmp_path / "mine.j2").write_text(prompt)
        settings = {"provider": "openai", "prompt": str(tmp_path / "mine.j2"), **profiles}
        raw = {"experiment": "toy", "models": {"BPR": {}}, "profiles": settings}
        (tmp_path / "toy.yaml").write_text(yaml.safe_dump(raw))
        return load(tmp_path / "toy.yaml", overrides)

    return load_with


def test_a_prompt_without_front_matter_is_all_text():
    template, front = parse_prompt(BODY + "---\n", "mine")
    assert template.text == BODY + "---\n"
    assert front == FrontMatter()
    assert front.model_fields_set == set()


def test_front_matter_is_taken_off_the_text():
    text = fronted("model: tiny", "system: Be brief.", "history: {limit: 3}")
    template, front = parse_prompt(text, "mine")
    assert template.text == BODY
    assert (template.system, template.first_line) == ("Be brief.", 6)
    assert front.model_dump(exclude_unset=True) == {
        "model": "tiny",
        "system": "Be brief.",
        "history": {"limit": 3},
    }
    messages = Prompt(template, "mine").fill(user_values([], None))
    assert (messages.system, messages.user) == ("Be brief.", "0 items")
    template, front = parse_prompt("---\r\nseed: 3\r\n---\r\n" + BODY, "mine")
    assert (front.model_dump(exclude_unset=True), template.text) == ({"seed": 3}, BODY)


def test_the_system_text_is_a_template_too():
    template, _ = parse_prompt(fronted("system: '{{ n_interactions }} items'"), "mine")
    assert Prompt(template, "mine").fill(user_values([], None)).system == "0 items"


def test_what_is_named_goes_before_front_matter_and_that_before_defaults(configured):
    prompt = fronted("model: tiny", "temperature: 0.5", "history: {limit: 3, titles: masked}")
    pipeline = configured(prompt, "profiles.history.limit=9", llm={"temperature": 0.0})
    assert pipeline.profiles.llm == LLM(model="tiny", temperature=0.0)
    assert pipeline.profiles.history == History(limit=9, titles="masked")
    default = configured(BODY)
    assert default.profiles.llm == LLM()
    # Named, though as the default has it.
    assert configured(prompt, "profiles.llm.model=gpt-4o-mini").profiles.llm.model == "gpt-4o-mini"


def test_front_matter_counts_as_far_as_it_decides_something(configured):
    def key(*front: str, **profiles):
        pipeline = configured(fronted(*front) if front else BODY, **profiles)
        return content([pipeline.profiles.llm, pipeline.profiles.history, prompt_of(pipeline)])

    plain = key()
    assert key("# by whom", "") == plain
    assert key("temperature: 0.7", llm={"temperature": 0.0}) == key(llm={"temperature": 0.0})
    assert key("temperature: 0.0") == plain
    for change in ("temperature: 0.7", "history: {order: best}", "system: Be brief."):
        assert key(change) != plain


def test_offline_profiles_do_not_read_their_prompt(configured):
    pipeline = configured(fronted("histry: {}"), provider="offline")
    assert pipeline.profiles.history == History()
    assert prompt_of(pipeline).text == ""


def test_items_have_their_own_prompt_and_default(configured, tmp_path):
    (tmp_path / "items.j2").write_text(
        fronted("history: {titles: masked}", body="{% block user %}{{ title }}{% endblock %}")
    )
    settings = [f"item_profiles.prompt={tmp_path / 'items.j2'}", "item_profiles.provider=openai"]
    pipeline = configured(BODY, *settings)
    assert (pipeline.item_profiles.history.limit, pipeline.item_profiles.history.titles) == (
        10,
        "masked",
    )
    assert pipeline.profiles.history.titles == "shown"
    with pytest.raises(BadInput, match="items have no user fields"):
        configured(BODY, *settings, "item_profiles.history.demographics=[age]")


def test_a_prompt_never_says_whom_to_ask():
    # Else a prompt from elsewhere could send the key, or another variable's value, to its author.
    known = ["model", "temperature", "max_tokens", "seed", "system", "history"]
    assert list(FrontMatter.model_fields) == known
    for key in ("base_url", "api_key_env", "api_key_secret", "concurrency"):
        with pytest.raises(BadInput, match=rf"{key} .* as profiles\.llm\.{key}"):
            parse_prompt(fronted(f"{key}: x"), "mine")


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        (fronted("temprature: 1"), ["mine", "temprature", "did you mean temperature?"]),
        (fronted("history: {limt: 1}"), ["mine", "history.limt", "did you mean limit?"]),
        (fronted("colour: red"), ["mine", "colour", "known: history, max_tokens, model"]),
        (fronted("temperature: warm"), ["mine", "temperature", "'warm'"]),
        (fronted("history: {limit: 0}"), ["mine", "history.limit", "greater than or equal to 1"]),
        (fronted("history: 5"), ["mine", "history"]),
        (fronted("system: [a]"), ["mine", "system", "a valid string"]),
        (fronted("seed: 1", "model: [a"), ["mine", "line 4", "not valid YAML"]),
        (fronted("- seed"), ["mine", "mapping"]),
        ("---\nseed: 1\n" + BODY, ["mine", "line 1", "does not end"]),
    ],
)
def test_faulty_front_matter_is_named_with_file_and_key(text, fragments):
    with pytest.raises(BadInput) as error:
        parse_prompt(text, "mine")
    assert all(fragment in str(error.value) for fragment in fragments), error.value


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        (fronted("seed: 1", body=BODY + "{{ film }}"), ["mine, line 5", "no variable film"]),
        (fronted("seed: 1", body="{% block user %}{% for %}"), ["mine, line 4"]),
        (fronted("system: '{{ film }}'"), ["mine, system in its front matter, line 1", "film"]),
        (
            fronted("system: a", body=BODY + "{% block system %}b{% endblock %}"),
            ["mine has system in its front matter and as a block"],
        ),
    ],
)
def test_lines_are_counted_from_the_top_of_the_file(text, fragments):
    with pytest.raises(BadInput) as error:
        Prompt(parse_prompt(text, "mine")[0], "mine")
    assert all(fragment in str(error.value) for fragment in fragments), error.value


def test_a_template_that_cannot_be_filled_names_the_line_of_its_file():
    text = fronted("seed: 1", body="{% block user %}\n{{ history[0].titel }}{% endblock %}")
    row = {"title": "Heat", "year": None, "genres": None, "rating": None}
    with pytest.raises(BadInput, match=r"mine, line 5: .*titel"):
        Prompt(parse_prompt(text, "mine")[0], "mine").fill(user_values([row], None))
