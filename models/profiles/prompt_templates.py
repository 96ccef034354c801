"""Prompt templates: text that users edit, filled with data that nobody has checked.

A template is Jinja with a block `user` (required) and a block `system` (optional, and it may
stand in the file's front matter instead, see `tasks.config.prompt_file`): the two messages of the
request. It sees

    history         the interactions a profile may be written from, best or newest first; each
                    has title, year, genres and rating
    liked           those rated at or above the user's own or the population's mean rating;
                    all of them, where there are no ratings
    disliked        the others
    n_interactions  the length of history
    mean_rating     the mean rating in history, one decimal; none without ratings
                    (where dataset.feedback is counts, an entry of history has times, how often it
                    was chosen, instead of a rating, and all are liked)
    user            what history.demographics names, by field; empty unless it names something

A template for items sees

    title, year, genres  of the item
    companions           items that the same users liked, the most similar first; each has title,
                         year and genres
    audience             genres that its users like more than others do, beside its own
    n_users              how many users chose it; none where no interaction is shown
    mean_rating          their mean rating, one decimal; none without ratings

`title` is a JSON string with its quotes, so that a title that reads like an instruction stays a
quotation. `year`, `rating` and a field of `user` may be none. User and item ids are not available.
What a history policy hides is none, too; of masked titles see `masked`.
"""

import math
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import compress, pairwise
from json.encoder import encode_basestring as _quoted
from operator import not_
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, nodes
from jinja2.meta import find_undeclared_variables
from jinja2.runtime import Context, Macro
from jinja2.sandbox import SandboxedEnvironment
from pydantic import Field

from models.arrow import user_offsets
from models.config import NOT_IDENTITY, History, Section, Side
from models.errors import BadInput
from models.profiles.item_profiles import Subjects
from models.profiles.item_profiles import values as item_values
from models.profiles.user_history import ROUNDING, describe, masked, presentable, presentable_fields
from models.schemas import GENRES, ITEM, RATING, TITLE, USER, YEAR

_USERS_AT_ONCE = 1000
_METHODS = frozenset(dir(dict))
_SCOPES = ("_loop_vars", "_block_vars")
"""What Jinja's compiler hands to each call, for functions that take the context."""
_SHOWN = (TITLE, YEAR, GENRES, RATING)

VARIABLES: dict[Side, tuple[str, ...]] = {
    "users": ("history", "liked", "disliked", "n_interactions", "mean_rating", "user"),
    "items": ("title", "year", "genres", "companions", "audience", "n_users", "mean_rating"),
}


class Template(Section):
    """A prompt's text without its front matter: what decides a rendered prompt."""

    text: str
    system: str | None = Field(None, description="From the front matter.")
    first_line: int = Field(
        1, description="Where the text begins in its file.", json_schema_extra=NOT_IDENTITY
    )

    @property
    def content(self) -> str:
        """Everything that a rendered prompt depends on."""
        return "\n".join(filter(None, [self.system, self.text]))


@dataclass(frozen=True)
class Messages:
    """One rendered prompt."""

    system: str | None
    user: str

    def chat(self) -> list[dict[str, str]]:
        """Return the messages of an OpenAI chat request."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": self.user}]


class _Environment(SandboxedEnvironment):
    """A sandbox with short ways for what is common: a field of a dict, a macro, a filter."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name, called in self.filters.items():
            if hasattr(called, "jinja_async_variant"):  # asks at each call whether to wait
                self.filters[name] = called.__wrapped__

    def getattr(self, obj: Any, attribute: str) -> Any:
        """As Jinja's: a method of dict comes before a field of its name."""
        if type(obj) is dict and attribute in obj and attribute not in _METHODS:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def call(self, context: Context, obj: Any, /, *given: Any, **named: Any) -> Any:
        """As Jinja's, without its questions about a macro of the template, which is always safe."""
        if type(obj) is not Macro:
            return super().call(context, obj, *given, **named)
        for scope in _SCOPES:
            named.pop(scope, None)
        return obj(context.eval_ctx, *given, **named)


class Prompt:
    """A compiled template for users or items, called `name` in error messages.

    Raises:
        BadInput: for a syntax error, an unknown variable, a missing block `user` or two systems.
    """

    def __init__(self, template: str | Template, name: str, side: Side = "users") -> None:
        if isinstance(template, str):
            template = Template(text=template)
        self._name, self._first_line, self._system_lines = name, template.first_line, 0
        text = template.text
        if template.system is not None:
            text = f"{{% block system %}}{template.system}{{% endblock %}}\n{text}"
            self._system_lines = template.system.count("\n") + 1
        environment = _Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        try:
            tree = environment.parse(text)
            blocks = Counter(block.name for block in tree.find_all(nodes.Block))
            if template.system is not None and blocks["system"] > 1:
                raise BadInput(
                    f"prompt {name} has system in its front matter and as a block. Keep one"
                )
            self._template = environment.from_string(text)
        except TemplateSyntaxError as error:
            raise BadInput(f"{self._place(error.lineno)}: {error.message}") from error
        self._variables = find_undeclared_variables(tree)
        for variable in sorted(self._variables - set(VARIABLES[side]) - set(environment.globals)):
            lines = [node.lineno for node in tree.find_all(nodes.Name) if node.name == variable]
            raise BadInput(
                f"{self._place(min(lines))}: there is no variable {variable}. "
                f"A template for {side} may use {', '.join(VARIABLES[side])}"
            )
        if not blocks["user"]:
            raise BadInput(
                f"prompt {name} has no {{% block user %}} … {{% endblock %}}. "
                "Put the text that goes to the model there"
            )

    def require_demographics(self, fields: tuple[str, ...]) -> None:
        """Refuse user fields that were asked for, but of which the template uses nothing."""
        if fields and "user" not in self._variables:
            raise BadInput(
                f"prompt {self._name} does not use the variable user, so that "
                f"history.demographics ({', '.join(fields)}) would change nothing. Use "
                "{{ user.FIELD }} in it, or leave demographics empty"
            )

    def fill(self, values: dict[str, Any]) -> Messages:
        """Fill the template with `VARIABLES`; BadInput names the line that fails."""
        system, user = self._block("system", values), self._block("user", values)
        if not user:
            raise BadInput(f"prompt {self._name}: its block user gives an empty text. Write one")
        return Messages(system or None, user)

    def _block(self, name: str, values: dict[str, Any]) -> str:
        """Fill a block; empty if there is none."""
        if (block := self._template.blocks.get(name)) is None:
            return ""
        try:
            try:
                return "".join(block(self._template.new_context(values))).strip()
            except Exception:
                # Raises it again, with the template's lines in place of the compiled code's.
                self._template.environment.handle_exception()
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            frames = traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in frames if frame.filename == "<template>"]
            raise BadInput(f"{self._place(lines[-1] if lines else None)}: {error}") from error

    def _place(self, line: int | None) -> str:
        if line is None:
            return f"prompt {self._name}"
        if line <= self._system_lines:
            return f"prompt {self._name}, system in its front matter, line {line}"
        return f"prompt {self._name}, line {line - self._system_lines + self._first_line - 1}"


def render_all(
    prompt: Prompt,
    selected: pa.Table,
    items: pa.Table,
    policy: History | None = None,
    people: pa.Table | None = None,
    mean_rating: float | None = None,
) -> Iterator[tuple[str, Messages]]:
    """Yield each user's id and prompt; raises as `Prompt.fill`.

    `selected` is the result of `models.profiles.user_history.select`, `items` has the schema
    `ITEMS`; `people` has `user_id` and the demographic fields, which are empty for users that it
    lacks. `mean_rating` is of everybody's interactions; empty means of those in `selected`.
    """
    policy = policy or History()
    users, offsets = user_offsets(selected)
    catalogue = presentable(items)
    if mean_rating is None:
        mean_rating = pc.mean(selected[RATING]).as_py()
    nobody = dict.fromkeys(policy.demographics)
    known = _by_user(people, policy.demographics) if nobody and people is not None else {}
    for first in range(0, len(users), _USERS_AT_ONCE):
        bounds = offsets[first : first + _USERS_AT_ONCE + 1]
        histories = describe(selected.slice(bounds[0], bounds[-1] - bounds[0]), catalogue)
        if policy.titles == "masked":
            histories = masked(histories)
        columns = [histories[name].to_pylist() for name in _SHOWN]
        rows = [dict(zip(_SHOWN, row, strict=True)) for row in zip(*columns, strict=True)]
        for number, (start, stop) in enumerate(pairwise((bounds - bounds[0]).tolist()), first):
            user = users[number].as_py()
            values = user_values(rows[start:stop], mean_rating, policy, known.get(user, nobody))
            yield user, prompt.fill(values)


def _by_user(people: pa.Table, fields: tuple[str, ...]) -> dict[str, dict[str, str | None]]:
    rows = presentable_fields(people.select(list(fields))).to_pylist()
    return dict(zip(people[USER].to_pylist(), rows, strict=True))


def render_items(
    prompt: Prompt, known: Subjects, policy: History | None = None
) -> Iterator[tuple[str, Messages]]:
    """Yield each item's id and prompt; `policy` as in `render_all`."""
    policy = policy or History()
    if policy.titles == "masked":
        known = replace(known, described=masked(known.described))
    for item, row in zip(known.described[ITEM].to_pylist(), item_values(known), strict=True):
        mean = row["mean_rating"] if policy.ratings == "shown" else None
        shown = {
            "title": _quoted(row["title"]),
            "companions": [
                {**other, "title": _quoted(other["title"])} for other in row["companions"]
            ],
            "mean_rating": None if mean is None else _number(round(mean, 1)),
        }
        yield item, prompt.fill({**row, **shown})


def user_values(
    history: list[dict[str, Any]],
    population_mean: float | None,
    policy: History | None = None,
    user: Mapping[str, str | None] | None = None,
) -> dict[str, Any]:
    """Return what a template of users sees, by the names of `VARIABLES`; titles come masked."""
    policy = policy or History()
    shows_ratings, counted = policy.ratings == "shown", policy.feedback == "counts"
    entries = [
        {
            "title": _quoted(row[TITLE]),
            "year": row[YEAR],
            "genres": row[GENRES] or [],
            "rating": _number(row[RATING]) if shows_ratings and not counted else None,
            "times": _number(row[RATING]) if shows_ratings and counted else None,
        }
        for row in history
    ]
    ratings = [row[RATING] for row in history if row[RATING] is not None and not counted]
    mean = sum(ratings) / len(ratings) if ratings else None
    known = [value for value in (mean, population_mean) if value is not None]
    low = min(known) - ROUNDING if known and not counted else -math.inf
    disliked = [row[RATING] is not None and row[RATING] < low for row in history]
    return {
        "history": entries,
        "liked": list(compress(entries, map(not_, disliked))),
        "disliked": list(compress(entries, disliked)),
        "n_interactions": len(entries),
        "mean_rating": _number(round(mean, 1)) if mean is not None and shows_ratings else None,
        "user": dict(user or {}),
    }


@lru_cache(1024)  # few ratings differ
def _number(value: float | None) -> float | int | None:
    """4 rather than 4.0, and no traces of single precision, so that prompts read naturally."""
    if value is None:
        return None
    rounded = round(value, 4)
    return int(rounded) if rounded.is_integer() else rounded
