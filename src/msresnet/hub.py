"""Files of the Hugging Face hub: from the cache, else downloaded, else an error that names the ways out.

A place on the hub is written 'hf:user/repo' or 'hf:user/repo@revision'. Nothing is downloaded that was not asked for; a
file that another program left in the hub's own cache is used from there.
"""

from __future__ import annotations

import contextlib
import re
import socket
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies

from msresnet.errors import ModelError, UsageError
from msresnet.files import cache_folder, plain_yaml, write_text

PREFIX = "hf:"
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
"""The files of a model, in a repository and in a folder."""
FORMAT_VERSION = 1
"""Of what CONFIG says, and of what exported files carry."""
NOT_STATED = "not stated"
TIMEOUT = 5
"""Seconds to wait for the hub to take a connection."""
PROBE_AGAIN = 30
"""Seconds for which an answer to that is good."""
_PLACE = re.compile(r"hf:(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w][\w./-]*))?", re.ASCII)


class Place(NamedTuple):
    """A repository on the hub, at a revision (None: the newest)."""

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return PREFIX + self.repo + (f"@{self.revision}" if self.revision else "")


def check_format(version: int, where: str) -> None:
    """Raise ModelError for a model that a newer msresnet wrote; TypeError where the version is not a number."""
    if version > FORMAT_VERSION:
        what = f"the model has format {version}, this msresnet reads up to {FORMAT_VERSION}"
        raise ModelError(what, where=where, hint="pip install --upgrade msresnet")


def place(text: str) -> Place:
    """What 'hf:user/repo@revision' means. Raises UsageError for anything else, names with '..' among them."""
    found = _PLACE.fullmatch(text)
    if found is None or ".." in text or not _is_repository(found["repo"]):
        raise UsageError(f"{text!r} names no place on the hub", hint="hf:timm/res2net50_26w_4s.in1k")
    return Place(found["repo"], found["revision"])


def _is_repository(name: str) -> bool:
    """Whether the hub's client takes a name: it knows more rules than a pattern should."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def meant(text: str) -> str:
    """What another library's spelling of a place, 'hf-hub:user/repo' or 'user/repo', is here; '' for other texts."""
    found = re.fullmatch(r"(?:hf[-_]hub:)?([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)", text)
    return f"{PREFIX}{found[1]}" if found else ""


def cached(where: Place, filename: str) -> Path | None:
    """A file that is here already, in our cache or in the hub's own; None where there is none."""
    from huggingface_hub import try_to_load_from_cache

    for folder in (_folder(), None):  # None is the hub's own cache
        found = try_to_load_from_cache(where.repo, filename, cache_dir=folder, revision=where.revision)
        if isinstance(found, str):
            return Path(found)
    return None


def fetch(where: Place, filename: str) -> Path:
    """A file of a repository. Raises ModelError, with what to do, when it is neither here nor to be had."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        EntryNotFoundError,
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
    )

    found = cached(where, filename)
    if found is not None:
        return found
    if not answers():
        raise _absent(where, filename, "the hub does not answer")
    try:
        return Path(hf_hub_download(where.repo, filename, revision=where.revision, cache_dir=_folder()))
    except LocalEntryNotFoundError as error:
        why = "the hub cannot be reached, or HF_HUB_OFFLINE is set"
        raise _absent(where, filename, why) from error
    except EntryNotFoundError as error:
        raise ModelError(f"the repository has no {filename}", where=str(where), why="pickles are not loaded") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        raise _absent(where, filename, f"the hub answered {status}") from error
    except (OSError, HTTPError) as error:  # the connection broke
        raise _absent(where, filename, (str(error).splitlines() or [type(error).__name__])[0][:200]) from error


def licence(where: Place, known: str = "") -> str:
    """The licence of a repository: what is known of it, else what its card states."""
    if known:
        return known
    try:
        text = fetch(where, CARD).read_text(encoding="utf-8", errors="replace")
        head = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
        stated = plain_yaml(head[1], str(where), "") if head else {}
    except (ModelError, UsageError, OSError):
        return NOT_STATED
    return str(stated.get("license") or NOT_STATED) if isinstance(stated, dict) else NOT_STATED


def announce(where: Place, known_licence: str = "") -> str:
    """Say, once for each repository and before its first use, under which licence it is; returns the licence."""
    noted = cache_folder() / "licences" / where.repo.replace("/", "--")
    if noted.is_file():
        return noted.read_text(encoding="utf-8").strip()
    found = licence(where, known_licence)
    if found != NOT_STATED or answers():
        terms = "ask its authors before you use it" if found in ("unknown", NOT_STATED) else "see its card"
        print(f"{where}: the licence of these weights is {found} ({terms})", file=sys.stderr)
        write_text(noted, found + "\n")
    return found


def commit(file: Path) -> str | None:
    """The commit that a cached file is of; None for a file that is in no cache of the hub."""
    return file.parent.name if file.parent.parent.name == "snapshots" else None


@contextlib.contextmanager
def own_cache() -> Iterator[None]:
    """While it lasts, the hub's client writes to our cache even when it is called by a library that cannot tell it."""
    from huggingface_hub import constants

    before, constants.HF_HUB_CACHE = constants.HF_HUB_CACHE, _folder()
    try:
        yield
    finally:
        constants.HF_HUB_CACHE = before


def answers() -> bool:
    """Whether somebody listens where the hub should be. Its library would try again and again for half a minute."""
    from huggingface_hub import constants

    if getproxies() or constants.HF_HUB_OFFLINE:  # then it is not for us to know
        return True
    return _listens(constants.ENDPOINT, int(time.monotonic()) // PROBE_AGAIN)


@cache
def _listens(endpoint: str, _period: int) -> bool:
    url = urlsplit(endpoint)
    try:
        port = url.port or (80 if url.scheme == "http" else 443)
        with socket.create_connection((url.hostname or "", port), TIMEOUT):
            return True
    except OSError:
        return False


def _folder() -> str:
    return str(cache_folder() / "hub")


def _absent(where: Place, filename: str, why: str) -> ModelError:
    url = f"https://huggingface.co/{where.repo}/resolve/main/{filename}"
    return ModelError(
        f"{filename} of {where.repo} is not in the cache and cannot be downloaded",
        where=_folder(),
        why=why,
        hint=f"with a network, once; or fetch {url} elsewhere, and name the file in place of the repository",
    )
