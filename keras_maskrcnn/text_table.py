"""Tables in plain text."""


def columns(rows):
    """Lines of a table: the first column is left-aligned, all others are right-aligned, two spaces between columns.

    Args:
        rows: list of lists of str of one length.

    Returns:
        list of str.
    """
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    ]
