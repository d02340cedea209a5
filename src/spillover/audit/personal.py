"""Personal data in texts, by form and checksum. What is reserved (RFC 2606, 5737, 3849, 555-01xx) is told apart."""

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

DIGIT = re.compile(r"\d")
EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@((?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24})(?![\w-])")
PHONE = re.compile(
    r"(?<![\w.+-])(?:\+[1-9]\d{0,2}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){1,4}"
    r"|(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[.-])\d{3}[.-]\d{4})(?![\w-]|\.\d)"
)
IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{1,4}:{1,2}){2,7}[0-9A-Fa-f]{0,4}(?![\w:.])")
CARD = re.compile(
    r"(?<![\w.-])(?:[3-6]\d{3}[ -]?(?:\d{4}[ -]?){2}\d{1,7}|3[47]\d{2}[ -]?\d{6}[ -]?\d{5})(?![\w-]|\.\d)"
)
IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)")
SOCIAL = re.compile(r"(?<![\w-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")
RESERVED_DOMAINS = re.compile(
    r"(?:^|\.)(?:example\.(?:com|net|org|edu)|[\w-]+\.(?:example|test|invalid|localhost|local))$", re.IGNORECASE
)
FICTION = re.compile(r"555[ .-]?01\d\d$")
"""The end of the American numbers that are kept for fiction."""
TEST_CARDS = frozenset(
    [
        "4111111111111111",
        "4242424242424242",
        "4000056655665556",
        "5555555555554444",
        "5105105105105100",
        "378282246310005",
        "371449635398431",
        "6011111111111117",
        "6011000990139424",
        "4012888888881881",
        "3530111333300000",
        "30569309025904",
    ]
)
"""Numbers that payment providers publish for tests."""
TEST_IBANS = frozenset({"GB29NWBK60161331926819", "GB82WEST12345698765432", "DE89370400440532013000"})
"""Those of the standard's own examples."""
KINDS = {
    "email": "An e-mail address",
    "phone": "A telephone number",
    "ip": "A public IP address",
    "card": "A payment card's number, by its checksum (Luhn)",
    "iban": "A bank account (IBAN), by its checksum",
    "social_security": "An American social security number, by its form",
}
RESERVED = {
    "email": "An e-mail address at a domain that is reserved for examples",
    "phone": "A telephone number that is reserved for fiction",
    "ip": "A private, local or documentation IP address",
    "card": "A card's number that is published for tests",
    "iban": "A bank account of the standard's own examples",
}


@dataclass(frozen=True)
class Personal:
    """Something that looks like personal data.

    Attributes:
        kind: one of KINDS.
        text: as it stands there.
        start: where.
        reserved: whether it is of a form that belongs to nobody.
    """

    kind: str
    text: str
    start: int
    reserved: bool

    @property
    def name(self) -> str:
        """The kind, with `_reserved` where it belongs to nobody."""
        return f"{self.kind}_reserved" if self.reserved else self.kind


def personal_data(text: str) -> Iterator[Personal]:
    """What looks like personal data in a text."""
    if "@" in text:
        yield from _found("email", EMAIL, text, lambda found: bool(RESERVED_DOMAINS.search(found[1])))
    if ":" in text:
        yield from _found("ip", IPV6, text, _is_reserved_address)
    if not DIGIT.search(text):
        return
    yield from _found("ip", IPV4, text, _is_reserved_address)
    yield from _found("card", CARD, text, _is_test_card)
    yield from _found("iban", IBAN, text, _is_test_iban)
    yield from _found("social_security", SOCIAL, text, lambda found: False)
    yield from _found("phone", PHONE, text, _is_fiction)


def _found(
    kind: str, form: re.Pattern[str], text: str, reserved: Callable[[re.Match[str]], bool | None]
) -> Iterator[Personal]:
    """The places of a form; `reserved` says None where it is none of the kind after all."""
    for found in form.finditer(text):
        is_reserved = reserved(found)
        if is_reserved is not None:
            yield Personal(kind, found[0], found.start(), is_reserved)


def _is_reserved_address(found: re.Match[str]) -> bool | None:
    try:
        return not ipaddress.ip_address(found[0]).is_global
    except ValueError:
        return None


def _is_test_card(found: re.Match[str]) -> bool | None:
    digits = re.sub(r"\D", "", found[0])
    return digits in TEST_CARDS if 13 <= len(digits) <= 19 and luhn(digits) and len(set(digits)) > 2 else None


def luhn(digits: str) -> bool:
    """Whether the last digit is the checksum of those before (ISO/IEC 7812)."""
    doubled = [int(one) * (1 + place % 2) for place, one in enumerate(reversed(digits))]
    return sum(one // 10 + one % 10 for one in doubled) % 10 == 0


def _is_test_iban(found: re.Match[str]) -> bool | None:
    account = found[0].replace(" ", "")
    return account in TEST_IBANS if iban(account) else None


def iban(account: str) -> bool:
    """Whether the check digits are those of the account (ISO 13616: the remainder by 97 is 1)."""
    moved = account[4:] + account[:4]
    return 15 <= len(account) <= 34 and int("".join(str(int(sign, 36)) for sign in moved)) % 97 == 1


def _is_fiction(found: re.Match[str]) -> bool | None:
    digits = re.sub(r"\D", "", found[0])
    return bool(FICTION.search(found[0])) if 8 <= len(digits) <= 15 or len(digits) == 10 else None
