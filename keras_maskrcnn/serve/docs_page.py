"""The OpenAPI description as a page that loads nothing from elsewhere."""

import html

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%}td,th{border:1px solid #aaa;padding:.3rem .6rem;text-align:left}"
    "code{background:#8882;padding:0 .2rem}:root{color-scheme:light dark}"
)


def docs_page(openapi):
    """An HTML page of the routes, their parameters, bodies and answers.

    Args:
        openapi: dict of the OpenAPI description.
    """
    title = html.escape(openapi["info"]["title"])
    routes = "".join(
        _route(method, path, route) for path, methods in openapi["paths"].items() for method, route in methods.items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
        f"<h1>{title}</h1><p>{html.escape(openapi['info']['description'])}</p>"
        f'<p>For programs: <a href="openapi.json">openapi.json</a></p>{routes}</html>'
    )


def _route(method, path, route):
    given = [(one["name"], one["in"], _values(one["schema"]), one.get("description", "")) for one in _of(route)]
    bodies = ", ".join(route.get("requestBody", {}).get("content", ()))
    found = [(status, answer["description"]) for status, answer in route["responses"].items() if status != "422"]
    return (
        f"<h2><code>{method.upper()} {html.escape(path)}</code></h2><p>{html.escape(route.get('description', ''))}</p>"
        + _table(("parameter", "in", "values", "meaning"), given)
        + (f"<p>Body: {html.escape(bodies)}</p>" if bodies else "")
        + _table(("status", "meaning"), found)
    )


def _of(route):
    return route.get("parameters", ())


def _values(schema):
    kinds = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    return ", ".join(" | ".join(one["enum"]) if "enum" in one else one.get("type", "") for one in kinds)


def _table(head, rows):
    if not rows:
        return ""
    lines = [f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows]
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{''.join(lines)}</table>"
