"""The page to try a model in a browser: a fixed list of files of the package, read when the service starts."""

import importlib.resources

from starlette.responses import Response

FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/page_downloads.js": ("page_downloads.js", "text/javascript"),
    "/page_items.js": ("page_items.js", "text/javascript"),
}
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
}


def answers():
    """Returns a dict from the paths of the page's files to their responses."""
    folder = importlib.resources.files(__package__)
    return {
        path: Response(folder.joinpath(name).read_bytes(), media_type=kind, headers=HEADERS)
        for path, (name, kind) in FILES.items()
    }
