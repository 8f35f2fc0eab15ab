"""URIs of datasets, for tests that read them back."""

from urllib.parse import quote, urlencode

from olmo_mixlaw.datasets.uri import SCHEME


def write(name: str, parameters: dict[str, str]) -> str:
    """The URI of a dataset with these parameters, escaped as web tools do it."""
    query = urlencode(parameters, safe=":,/", quote_via=quote)
    return f"{SCHEME}{name}?{query}" if query else SCHEME + name
