"""The one exception that a user's own input may cause."""


class UserError(ValueError):
    """Input that cannot be used; the message says what was wrong, the value, and what would be right."""
