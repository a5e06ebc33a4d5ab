"""The addresses that web servers may have, so that a list of images can't reach into a private network."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

# IANA's registries of special purpose addresses, and multicast. ipaddress.is_global differs between Python's versions.
_SPECIAL_4 = [
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's own server for its virtual machines
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
]
_UNICAST_6 = ip_network("2000::/3")
_SPECIAL_6 = [ip_network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")]
# Addresses that stand for an IPv4 address: mapped, and those of a translator (NAT64).
_MAPPED, _NAT64 = ip_network("::ffff:0:0/96"), ip_network("64:ff9b::/96")


class AddressRefusedError(Exception):
    """A host has an address that images are not fetched from."""


def is_public(address: str) -> bool:
    """Tell whether an address, given as text, is on the public internet. Text that is no address is not."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address):
        if parsed not in _MAPPED and parsed not in _NAT64:
            return parsed in _UNICAST_6 and not any(parsed in network for network in _SPECIAL_6)
        parsed = IPv4Address(int(parsed) & 0xFFFF_FFFF)
    return not any(parsed in network for network in _SPECIAL_4)


def check(host: str, addresses: Iterable[str]) -> None:
    """Raise AddressRefusedError unless all addresses of a host are public."""
    for address in addresses:
        if not is_public(address):
            raise AddressRefusedError(
                f"{host} is at {address}, which is not on the public internet (allow_private_addresses)"
            )


async def resolve(host: str, port: int, *, private: bool) -> list[str]:
    """Return the addresses to connect to, checked unless `private` addresses are allowed.

    The system resolves the host only here, whatever its form (a number in octal, for example), so that what is checked
    is what is connected to.

    Raises:
        AddressRefusedError: one is not public, and `private` addresses are not allowed.
        OSError: the host isn't known.
    """
    entries = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
    if not private:
        check(host, addresses)
    return addresses
