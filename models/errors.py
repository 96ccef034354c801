"""The one exception that means "the user can mend this"."""

from models.credentials import masked
from models.plain_text import for_terminal


class BadInput(ValueError):
    """Input that the user can mend: shown as one sentence, exit code 2, never a traceback.

    The message names what is wrong, where (file, row, field or configuration key) and the fix.
    Credentials and control characters that it quotes are masked, since it reaches terminals, logs
    and Prefect's database.
    """

    def __init__(self, message: str) -> None:
        super().__init__(for_terminal(masked(message)))


def cut(quoted: str, longest: int = 80) -> str:
    """Shorten what a message quotes; masked first, since a part of a secret has no mark of one."""
    quoted = masked(quoted)
    return quoted if len(quoted) <= longest else f"{quoted[:longest]}…"


class Unavailable(BadInput):
    """Nothing can go on, since what does the work is not there: no matter of a single point."""
