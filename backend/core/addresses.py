"""Which network addresses may be called at people's wish: those of the open Internet, unless the operator allows more."""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable

from backend.core.errors import PermanentError, TransientError

JOBS_SETTING = "JOBS_HTTP_ALLOW_PRIVATE"

# Host and port to the IP address to connect to.
Resolver = Callable[[str, int], Awaitable[str]]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Answers to virtual machines of its cloud from a public range.
_AZURE_HOST = ipaddress.ip_address("168.63.129.16")
# RFC 6052: the last four bytes are an IPv4 address.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def _embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, or the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(address.packed[-4:])
    # A 6to4 address is routed to the IPv4 host inside it.
    return address.ipv4_mapped or address.sixtofour or address


def refusal(text: str, setting: str = JOBS_SETTING) -> str | None:
    """Why an IP address may not be called; None when it may. `setting` is the variable that allows it."""
    address = _embedded(ipaddress.ip_address(text))
    for name in ("loopback", "link_local", "multicast", "unspecified", "reserved", "private"):
        if getattr(address, f"is_{name}"):
            return f"{text} is a {name.replace('_', '-')} address; {setting}=on allows it"
    if not address.is_global or address == _AZURE_HOST:
        return f"{text} is not an address of the open Internet; {setting}=on allows it"
    return None


def literal_refusal(host: str, setting: str = JOBS_SETTING) -> str | None:
    """`refusal` for a host that is an IP address as it stands; None for a name, which is checked when it is resolved."""
    try:
        return refusal(host, setting)
    except ValueError:
        return None


async def resolve(host: str, port: int, *, allow_private: bool, setting: str = JOBS_SETTING) -> str:
    """The IP address to connect to. PermanentError when any address of the host may not be called; TransientError when the
    name cannot be resolved.

    The resolver also reads `2130706433` and `0177.0.0.1` as addresses, so the check stands behind it.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as fault:
        raise TransientError(f"{host}: {fault}") from fault
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not allow_private:
        for address in addresses:
            problem = refusal(address, setting)
            if problem:
                raise PermanentError(f"{host}: {problem}")
    return addresses[0]
