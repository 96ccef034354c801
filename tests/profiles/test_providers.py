"""The table of providers: a row for each that a configuration may name, and what each decides."""

from typing import get_args

import pytest

from models.config import History, ItemProfiles, Profiles
from models.errors import BadInput
from models.profiles.prompt_templates import Template
from tasks.profiles.profiles_task import PROVIDERS, profiles
from tasks.profiles.request import Request
from tests.support.fake_llm import data

pytestmark = pytest.mark.usefixtures("data_dir", "no_run_logger")


def test_every_provider_of_the_configuration_has_a_row():
    named = get_args(Profiles.model_fields["provider"].annotation)
    assert list(PROVIDERS) == list(named)


@pytest.mark.parametrize(
    ("provider", "limit"),
    [("offline", None), ("openai", 3), ("openai-batch", 3), ("import", 0), ("items", 0)],
)
def test_a_provider_says_which_interactions_a_text_is_written_from(provider, limit):
    path = "x.csv" if provider == "import" else None
    config = Profiles(provider=provider, path=path, history=History(limit=3))
    basis = PROVIDERS[provider].basis(Request(config, Template(text=""), *data("Heat")))
    if limit == 0:
        assert basis is None
    else:
        assert basis is not None
        assert basis.history.limit == limit or (limit is None and basis.history.limit > 10**9)


def test_users_described_by_items_have_no_texts():
    with pytest.raises(BadInput, match=r"no profiles of their own\. Show .* --side items"):
        profiles.fn(Profiles(provider="items"), "", *data("Heat"))


def test_free_providers_cost_nothing_for_items_too():
    made = profiles.fn(ItemProfiles(), "", *data("Heat", "Fargo"), None, "items")
    assert (made.source, made.cost_usd, made.answers_paid, made.llm_model) == (
        "offline",
        0,
        0,
        None,
    )
