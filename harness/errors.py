"""The errors that users see: what is wrong, where, and what to do next."""

from __future__ import annotations

import re

from latlab.harness.text import plain

__all__ = ["BadInputError", "LatlabError"]


class LatlabError(Exception):
    """An error that a user can do something about.

    Args:
        message: what is wrong and where (file and line, field, device).
        hint: what to do next.
    """

    exit_code = 1
    """The exit code of the command line."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        self.message = plain(message).rstrip()
        # What ends a foreign text, such as a question mark, ends the sentence, too.
        self.hint = None if hint is None else re.sub(r"(?<!\.)([.?!])\.$", r"\1", plain(hint))
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class BadInputError(LatlabError):
    """The user's input cannot be used: an unknown name, a malformed file, a folder that is not writable."""

    exit_code = 2
