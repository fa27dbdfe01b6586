"""What is said of an error that nobody foresaw."""

from __future__ import annotations

import logging
import secrets

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""
log = logging.getLogger(__name__)


def unexpected(what: str) -> str:
    """A sentence for an error that nobody foresaw, with an id that stands beside its traceback in the log."""
    number = secrets.token_hex(4)
    log.exception("%s (error %s)", what, number)
    return f"Something went wrong inside (error {number}): try again, and if it stays, report the id; the log has more."
