"""Which addresses images may come from: none that leads into a private network, in whatever form it is written."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pscr_engine.stores.public_addresses import AddressRefusedError, is_public, resolve

# Written out once more, by hand, from what the words mean.
PRIVATE = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"]
LOCAL = ["127.0.0.0/8", "0.0.0.0/8", "169.254.0.0/16"]
NOT_UNICAST = ["224.0.0.0/4", "240.0.0.0/4"]
ADDRESSES = st.sampled_from(PRIVATE + LOCAL + NOT_UNICAST).flatmap(lambda text: st.ip_addresses(v=4, network=text))
PUBLIC = ["8.8.8.8", "1.1.1.1", "93.184.215.14", "172.15.255.255", "172.32.0.1", "192.167.1.1", "100.128.0.1"]


@given(ADDRESSES)
def test_no_special_ipv4_address(address):
    assert not is_public(str(address))


@given(ADDRESSES)
def test_nor_one_inside_an_ipv6_address(address):
    number = int(address)
    for text in (
        str(IPv6Address((0xFFFF << 32) | number)),  # mapped: ::ffff:a.b.c.d
        f"::ffff:{address}",
        str(IPv6Address((0x64FF9B << 96) | number)),  # NAT64
        str(IPv6Address((0x64FF9B0001 << 80) | number)),  # a network's own NAT64
        str(IPv6Address((0x2002 << 112) | (number << 80) | 1)),  # 6to4
        str(IPv6Address((0x20010000 << 96) | (number ^ 0xFFFFFFFF))),  # Teredo
        str(IPv6Address(number)),  # IPv4-compatible, of old
    ):
        assert not is_public(text), text


@given(
    st.sampled_from(["fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "::/127", "2001:db8::/32", "100::/64"]).flatmap(
        lambda text: st.ip_addresses(v=6, network=text)
    )
)
def test_no_special_ipv6_address(address):
    assert not is_public(str(address))
    assert not is_public(f"{address}%eth0")


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses(text):
    assert is_public(text)
    assert is_public(f"::ffff:{text}")
    assert is_public(str(IPv6Address((0x64FF9B << 96) | int(IPv4Address(text)))))


@pytest.mark.parametrize("text", ["2606:4700:4700::1111", "2a00:1450:4001:81b::200e", "2400:cb00::1"])
def test_public_ipv6_addresses(text):
    assert is_public(text)


@given(st.ip_addresses(v=4))
def test_never_more_than_the_standard_library_lets_through(address):
    if is_public(str(address)):
        assert address.is_global
        assert not address.is_multicast


@given(st.text(max_size=40))
def test_what_is_no_address_is_not_public(text):
    if is_public(text):
        assert socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text.partition("%")[0])


FORMS = ["127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "localhost", "::1", "::ffff:127.0.0.1"]
FORMS += ["::ffff:7f00:1", "0x7f.1", "169.254.169.254", "2852039166", "0251.0376.0251.0376", "10.1", "192.168.257"]


@pytest.mark.parametrize("host", FORMS)
def test_forms_of_hosts_that_the_system_understands(host):
    """Check whatever the resolver makes of a host: numbers, octal, hexadecimal, short forms."""
    try:
        with pytest.raises(AddressRefusedError, match="is not on the public internet"):
            asyncio.run(resolve(host, 80, private=False))
    except socket.gaierror:  # not understood, and so not connected to
        return
    assert asyncio.run(resolve(host, 80, private=True))


def test_networks_in_this_test_are_what_they_seem():
    assert all(ip_network(text).num_addresses > 1 for text in PRIVATE + LOCAL + NOT_UNICAST)


def test_one_bad_address_of_several_is_enough(monkeypatch):
    async def lookup(*arguments, **options):
        return [(0, 0, 0, "", ("8.8.8.8", 80)), (0, 0, 0, "", ("10.0.0.1", 80))]

    async def run():
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup)
        return await resolve("both.example", 80, private=False)

    with pytest.raises(AddressRefusedError, match=r"both\.example is at 10\.0\.0\.1"):
        asyncio.run(run())
