"""Prompt templates: text that users edit, filled with data that nobody has checked.

A template is Jinja with a block `user` (required) and a block `system` (optional): the two
messages of the request. It sees

    history         the interactions a profile may be written from, best or newest first; each
                    has title, year, genres and rating
    liked           those rated at or above the user's own or the population's mean rating;
                    all of them, where there are no ratings
    disliked        the others
    n_interactions  the length of history
    mean_rating     the mean rating in history, one decimal; none without ratings

A template for items sees

    title, year, genres  of the item
    companions           items that the same users liked, the most similar first; each has title,
                         year and genres
    audience             genres that its users like more than others do, beside its own
    n_users              how many users chose it
    mean_rating          their mean rating, one decimal; none without ratings

`title` is a JSON string with its quotes, so that a title that reads like an instruction stays a
quotation. `year` and `rating` may be none. User and item ids are not available.
"""

import json
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress, pairwise
from operator import not_
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import SandboxedEnvironment

from models.config import Side
from models.errors import BadInput
from models.item_profiles import Subjects
from models.item_profiles import values as item_values
from models.profiles import ROUNDING, describe, presentable, user_offsets
from models.schemas import GENRES, ITEM, RATING, TITLE, YEAR

_USERS_AT_ONCE = 1000

VARIABLES: dict[Side, tuple[str, ...]] = {
    "users": ("history", "liked", "disliked", "n_interactions", "mean_rating"),
    "items": ("title", "year", "genres", "companions", "audience", "n_users", "mean_rating"),
}


@dataclass(frozen=True)
class Messages:
    """One rendered prompt."""

    system: str | None
    user: str

    def chat(self) -> list[dict[str, str]]:
        """The messages of an OpenAI chat request."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": self.user}]


class Prompt:
    """A compiled template.

    Args:
        text: the template.
        name: what to call it in error messages.
        side: whom it describes, which decides the variables.

    Raises:
        BadInput: for a syntax error, an unknown variable or a missing block `user`.
    """

    def __init__(self, text: str, name: str, side: Side = "users") -> None:
        self.text = text
        self._name = name
        environment = SandboxedEnvironment(
            undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        try:
            tree = environment.parse(text)
            self._template: Template = environment.from_string(text)
        except TemplateSyntaxError as error:
            raise BadInput(f"prompt {name}, line {error.lineno}: {error.message}") from error
        unknown = find_undeclared_variables(tree) - set(VARIABLES[side]) - set(environment.globals)
        for variable in sorted(unknown):
            lines = [node.lineno for node in tree.find_all(nodes.Name) if node.name == variable]
            raise BadInput(
                f"prompt {name}, line {min(lines)}: there is no variable {variable}; "
                f"a template for {side} may use {', '.join(VARIABLES[side])}"
            )
        if "user" not in self._template.blocks:
            raise BadInput(
                f"prompt {name} has no {{% block user %}} … {{% endblock %}}: "
                "put the text that goes to the model there"
            )

    def render(self, history: list[dict[str, Any]], population_mean: float | None) -> Messages:
        """Fill the template for one user.

        Args:
            history: rows with `title`, `year`, `genres`, `rating`.
            population_mean: mean rating over all users; None without ratings.

        Raises:
            BadInput: naming the line, if the template cannot be filled or yields no text.
        """
        return self.fill(_values(history, population_mean))

    def fill(self, values: dict[str, Any]) -> Messages:
        """Fill the template with `VARIABLES`.

        Raises:
            BadInput: naming the line, if the template cannot be filled or yields no text.
        """
        try:
            system, user = (self._block(block, values) for block in ("system", "user"))
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            frames = traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in frames if frame.filename == "<template>"]
            place = f", line {lines[-1]}" if lines else ""
            raise BadInput(f"prompt {self._name}{place}: {error}") from error
        if not user:
            raise BadInput(f"prompt {self._name}: its block user gives an empty text")
        return Messages(system or None, user)

    def _block(self, name: str, values: dict[str, Any]) -> str:
        block = self._template.blocks.get(name)
        if block is None:
            return ""
        try:
            return "".join(block(self._template.new_context(values))).strip()
        except Exception:
            # Raises it again, with the template's lines in place of the compiled code's.
            self._template.environment.handle_exception()


def render_all(
    prompt: Prompt, selected: pa.Table, items: pa.Table
) -> Iterator[tuple[str, Messages]]:
    """Yield each user's id and prompt.

    Args:
        prompt: the template.
        selected: the result of `models.profiles.select`.
        items: schema `ITEMS`.
    """
    users, offsets = user_offsets(selected)
    catalogue = presentable(items)
    population_mean = pc.mean(selected[RATING]).as_py()
    for first in range(0, len(users), _USERS_AT_ONCE):
        bounds = offsets[first : first + _USERS_AT_ONCE + 1]
        histories = describe(selected.slice(bounds[0], bounds[-1] - bounds[0]), catalogue)
        rows = histories.select([TITLE, YEAR, GENRES, RATING]).to_pylist()
        for user, (start, stop) in enumerate(pairwise((bounds - bounds[0]).tolist()), first):
            yield users[user].as_py(), prompt.render(rows[start:stop], population_mean)


def render_items(prompt: Prompt, known: Subjects) -> Iterator[tuple[str, Messages]]:
    """Yield each item's id and prompt."""
    for token, row in zip(known.described[ITEM].to_pylist(), item_values(known), strict=True):
        mean = row["mean_rating"]
        companions = [{**other, "title": _quoted(other["title"])} for other in row["companions"]]
        title, rating = _quoted(row["title"]), None if mean is None else _number(round(mean, 1))
        known_of_item = {"title": title, "companions": companions, "mean_rating": rating}
        yield token, prompt.fill({**row, **known_of_item})


def _quoted(title: str) -> str:
    return json.dumps(title, ensure_ascii=False)


def _values(history: list[dict[str, Any]], population_mean: float | None) -> dict[str, Any]:
    entries = [
        {
            "title": _quoted(row[TITLE]),
            "year": row[YEAR],
            "genres": row[GENRES] or [],
            "rating": _number(row[RATING]),
        }
        for row in history
    ]
    ratings = [row[RATING] for row in history if row[RATING] is not None]
    mean = sum(ratings) / len(ratings) if ratings else None
    known = [value for value in (mean, population_mean) if value is not None]
    disliked = [row[RATING] is not None and row[RATING] < min(known) - ROUNDING for row in history]
    return {
        "history": entries,
        "liked": list(compress(entries, map(not_, disliked))),
        "disliked": list(compress(entries, disliked)),
        "n_interactions": len(entries),
        "mean_rating": None if mean is None else _number(round(mean, 1)),
    }


def _number(value: float | None) -> float | int | None:
    """4 rather than 4.0, and no traces of single precision, so that prompts read naturally."""
    if value is None:
        return None
    rounded = round(value, 4)
    return int(rounded) if rounded.is_integer() else rounded
