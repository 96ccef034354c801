"""The one exception that means "the user can mend this"."""


class BadInput(ValueError):
    """Input that the user can mend: shown as one sentence, exit code 2, never a traceback.

    The message names what is wrong, where (file, row, field or configuration key) and the fix.
    """


def cut(quoted: str, longest: int = 80) -> str:
    """Shorten what a message quotes."""
    return quoted if len(quoted) <= longest else f"{quoted[:longest]}…"


class Unavailable(BadInput):
    """Nothing can go on, since what does the work is not there: no matter of a single point."""
