"""Which addresses a job may call."""

import pytest

from backend.core.addresses import literal_refusal, refusal, resolve
from backend.core.errors import PermanentError, TransientError

ALLOWED = ["8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"]
REFUSED = [
    "127.0.0.1",
    "127.8.9.1",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2001:db8::1",
]


@pytest.mark.parametrize("address", ALLOWED)
def test_an_address_of_the_open_internet_may_be_called(address: str) -> None:
    assert refusal(address) is None


@pytest.mark.parametrize("address", REFUSED)
def test_any_other_address_is_refused_and_the_setting_is_named(address: str) -> None:
    problem = refusal(address)
    assert problem is not None
    assert address in problem
    assert "JOBS_HTTP_ALLOW_PRIVATE" in problem


def test_a_name_is_left_to_the_resolver() -> None:
    assert literal_refusal("localhost") is None
    assert literal_refusal("127.0.0.1") is not None


@pytest.mark.parametrize("host", ["localhost", "2130706433", "0177.0.0.1", "127.1", "0x7f000001", "[::1]".strip("[]")])
async def test_a_host_that_resolves_to_loopback_is_refused(host: str) -> None:
    with pytest.raises(PermanentError, match="loopback"):
        await resolve(host, 80, allow_private=False)
    assert await resolve(host, 80, allow_private=True) in {"127.0.0.1", "::1"}


async def test_a_name_that_does_not_exist_may_exist_later() -> None:
    with pytest.raises(TransientError, match=r"nowhere\.invalid"):
        await resolve("nowhere.invalid", 80, allow_private=False)
