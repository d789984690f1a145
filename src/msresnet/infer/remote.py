"""One image's bytes from an http:// or https:// address; only where the user allowed it.

An address that a stranger wrote must not reach what only this machine can reach. So names are looked up once, and
the connection goes to the address that was looked at; private ones are only taken when the user's own address, the
first of a chain of redirects, is private itself; link-local ones, where clouds keep their secrets, never. Redirects go
to http and https alone, and never from https back to http. Size and time are bounded, whatever the other side does.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from msresnet.data.decode import printable
from msresnet.errors import DataError

SCHEMES = ("http", "https")
MOST_BYTES = 64 << 20
MOST_REDIRECTS = 5
PIECE = 1 << 16
MOVED = (301, 302, 303, 307, 308)
HEADERS = {"User-Agent": "msresnet", "Accept": "image/*, */*;q=0.1", "Accept-Encoding": "identity"}
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds: for a sign of life, and in all."""

    silent: float = 10.0
    whole: float = 60.0


USUAL = Patience()


def is_url(text: str) -> bool:
    """Whether a text is an address on the web, of whatever kind."""
    return "://" in text and text.partition("://")[0].isalnum()


def shown(url: str) -> str:
    """An address without the name and the password that may stand in it."""
    try:
        parts = urlsplit(url)
    except ValueError:  # no address at all
        return printable(url.rpartition("@")[2])
    return printable(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))


def fetch(url: str, patience: Patience = USUAL, limit: int = MOST_BYTES) -> bytes:
    """The bytes at an address. Raises DataError for whatever goes wrong, naming it."""
    where = shown(url)
    end = time.monotonic() + patience.whole
    try:
        private = _is_private(_addresses(_checked(url)))
        for _ in range(MOST_REDIRECTS + 1):
            found = _answer(_checked(url), private, patience, end, limit)
            if isinstance(found, bytes):
                return found
            following = urljoin(url, found)
            if urlsplit(url).scheme == "https" and urlsplit(following).scheme != "https":
                raise DataError("a redirect that leaves https is not followed", where=where, why=shown(following))
            url = following
    except DataError as error:
        raise DataError(error.what, where=where, why=error.why, hint=error.hint) from error
    except (OSError, http.client.HTTPException, ValueError, UnicodeError) as error:
        late = time.monotonic() >= end
        why = f"it took more than {patience.whole:g} s" if late else str(error) or type(error).__name__
        raise DataError("cannot fetch the image", where=where, why=why) from error
    raise DataError("too many redirects", where=where, why=f"more than {MOST_REDIRECTS}")


def _checked(url: str) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise DataError("this address is not fetched", why=f"{shown(url)} is not an http:// or https:// address")
    return parts


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def _addresses(parts: SplitResult) -> list[Address]:
    found = socket.getaddrinfo(parts.hostname, _port(parts), type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


def _inner(address: Address) -> Address:
    """The address within one that only wraps another."""
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address.sixtofour or address
    return address


def _is_private(addresses: list[Address]) -> bool:
    return all(not _inner(address).is_global for address in addresses)


def _allowed(address: Address, private: bool) -> bool:
    inner = _inner(address)
    if inner.is_link_local or inner.is_multicast or inner.is_unspecified:
        return False
    return inner.is_global or private


def _answer(parts: SplitResult, private: bool, patience: Patience, end: float, limit: int) -> bytes | str:
    """What an address holds, or where it has gone."""
    addresses = _addresses(parts)
    if not all(_allowed(address, private) for address in addresses):
        raise DataError("this address is not fetched", why=f"{parts.hostname} is in a private or a reserved network")
    with closing(_connection(parts, [*map(str, addresses)], patience.silent)) as connection:
        connection.connect()
        # A drop now and then keeps a connection alive; in the end it is cut.
        clock = threading.Timer(max(0.0, end - time.monotonic()), _cut, [connection.sock])
        clock.daemon = True
        clock.start()
        try:
            path = urlunsplit(("", "", parts.path or "/", parts.query, ""))
            connection.request("GET", path, headers=HEADERS)
            with connection.getresponse() as response:
                return _content(response, limit, end)
        finally:
            clock.cancel()


def _content(response: http.client.HTTPResponse, limit: int, end: float) -> bytes | str:
    moved = response.getheader("Location")
    if response.status in MOVED and moved:
        return moved
    if response.status != http.client.OK:
        raise DataError("cannot fetch the image", why=f"the server answered {response.status}")
    if int(response.getheader("Content-Length") or 0) > limit:
        raise DataError("the image is too large", why=f"{response.getheader('Content-Length')} bytes, not {limit:,}")
    parts: list[bytes] = []
    while piece := response.read(PIECE):
        parts.append(piece)
        if sum(map(len, parts)) > limit:
            raise DataError("the image is too large", why=f"more than {limit:,} bytes came")
    if time.monotonic() >= end:
        raise TimeoutError
    return b"".join(parts)


def _cut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it may have ended by itself
        sock.shutdown(socket.SHUT_RDWR)


def _connection(parts: SplitResult, addresses: list[str], silent: float) -> http.client.HTTPConnection:
    kind = _Secure if parts.scheme == "https" else _Plain
    return kind(str(parts.hostname), _port(parts), addresses, silent)


class _Plain(http.client.HTTPConnection):
    """A connection to one of the addresses that were looked at, under the name that was asked for."""

    def __init__(self, host: str, port: int, addresses: list[str], silent: float) -> None:
        super().__init__(host, port, timeout=silent)
        self.addresses = addresses

    def connect(self) -> None:
        """Connect, without asking for the name again. Raises OSError when no address answers."""
        for address in self.addresses:
            try:
                self.sock = socket.create_connection((address, self.port), self.timeout)
                return
            except OSError:
                if address == self.addresses[-1]:
                    raise


class _Secure(_Plain):
    """The same with TLS, whose certificate has to be of the name."""

    def connect(self) -> None:
        """Connect, and check the certificate."""
        super().connect()
        self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)
