"""The settings of notifications, checked at the start."""

import pytest

from backend.config import load
from backend.environment import ConfigError, email

MAIL = {"SMTP_HOST": "mail.example.net", "NOTIFY_FROM": "Beatline <beatline@example.net>"}
SECRET = "whsec_" + "A" * 44


def test_without_settings_nothing_leaves_the_house() -> None:
    config = load({})
    assert config.smtp is None
    assert (config.notify.webhook_secret, dict(config.notify.apprise), config.notify.alerts) == (b"", {}, ())


def test_the_port_follows_from_tls() -> None:
    for tls, port in (("", 587), ("starttls", 587), ("tls", 465), ("off", 25)):
        smtp = load({**MAIL, "SMTP_TLS": tls}).smtp
        assert smtp is not None
        assert smtp.port == port
    assert load({**MAIL, "SMTP_PORT": "2525"}).notify.sender == "Beatline <beatline@example.net>"


def test_targets_are_read() -> None:
    config = load(
        {
            "NOTIFY_APPRISE_URLS": "ops=json://host/a,b?c=d  on-call=tgram://token/1",
            "NOTIFY_ALERTS": "email:oncall@example.net apprise:ops email:oncall@example.net",
            "NOTIFY_WEBHOOK_SECRET": SECRET,
        }
    )
    assert config.notify.apprise == {"ops": "json://host/a,b?c=d", "on-call": "tgram://token/1"}
    assert config.notify.alerts == (("email", "oncall@example.net"), ("apprise", "ops"))
    assert config.notify.webhook_secret == bytes(33)


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"SMTP_HOST": "mail"}, "SMTP_HOST needs NOTIFY_FROM"),
        ({**MAIL, "SMTP_USERNAME": "me"}, "together"),
        ({**MAIL, "SMTP_USERNAME": "me", "SMTP_PASSWORD": "p", "SMTP_TLS": "off"}, "SMTP_PASSWORD needs SMTP_TLS"),
        ({**MAIL, "SMTP_TLS": "maybe"}, "SMTP_TLS='maybe' must be one of starttls, tls, off"),
        ({**MAIL, "SMTP_TLS_CA": "relative.pem"}, "SMTP_TLS_CA"),
        ({**MAIL, "SMTP_PROT": "25"}, "SMTP_PROT is not a setting; did you mean SMTP_PORT?"),
        ({"NOTIFY_FROM": "nobody"}, "NOTIFY_FROM"),
        ({"NOTIFY_FROM": "a@b.example\nBcc: c@d.example"}, "NOTIFY_FROM"),
        ({"NOTIFY_WEBHOOK_SECRET": "short-and-secret"}, "NOTIFY_WEBHOOK_SECRET must be whsec_"),
        ({"NOTIFY_WEBHOOK_SECRET": "whsec_AAAA"}, "24 to 64 bytes"),
        ({"NOTIFY_APPRISE_URLS": "slack://secret-token"}, "NOTIFY_APPRISE_URLS must be pairs"),
        ({"NOTIFY_APPRISE_URLS": "a=json://x a=json://y"}, "each name once"),
        ({"NOTIFY_ALERTS": "apprise:ops"}, "NOTIFY_ALERTS names apprise:ops, which NOTIFY_APPRISE_URLS does not"),
        ({"NOTIFY_ALERTS": "email:nobody"}, "must be an e-mail address"),
        ({"NOTIFY_ALERTS": "fax:1"}, "channels are email, apprise"),
        ({"NOTIFY_MAX_TRIES": "0"}, "NOTIFY_MAX_TRIES"),
    ],
)
def test_a_wrong_value_is_named(environ: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError) as fault:
        load(environ)
    assert problem in str(fault.value)
    assert "secret" not in str(fault.value)


@pytest.mark.parametrize(
    "address", ["a@b", "first.last+tag@mail.example.co.in", "o'neil@example.net", "x@1.2.example", "A_B%c@EXAMPLE.net"]
)
def test_an_address_that_mail_servers_take(address: str) -> None:
    assert email(address) == address


@pytest.mark.parametrize(
    "address",
    [
        "", "a", "@b.example", "a@", "a@b@c", "a b@c.example", ".a@b.example", "a.@b.example", "a..b@c.example",
        "a@-b.example", "a@b..c", "a@b.example\n", "a@b.example\r\nBcc: c@d", "ä@b.example", "a@ü.example",
        '"a b"@c.example', "a@[127.0.0.1]", "<a@b.example>", f"{'a' * 65}@b.example", f"a@{'b' * 256}",
    ],
)  # fmt: skip
def test_an_address_that_some_would_refuse(address: str) -> None:
    with pytest.raises(ValueError, match="e-mail address"):
        email(address)
