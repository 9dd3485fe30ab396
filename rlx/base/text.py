"""Text that others wrote, for a terminal."""


def escaped(text: str) -> str:
    """One line, with escapes for what moves the cursor, colours, turns or hides the text around it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
