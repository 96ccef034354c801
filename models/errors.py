"""The one exception that means "the user can mend this"."""


class BadInput(ValueError):
    """Input that the user can mend: shown as one sentence, exit code 2, never a traceback.

    The message names what is wrong, where (file, row, field or configuration key) and the fix.
    """


class Unavailable(BadInput):
    """Nothing can go on, since what does the work is not there: no matter of a single point."""
