"""The sections on secrets and on personal data: of every text of every row. Nothing is shown in full."""

from spillover.audit.credentials import ASSIGNED, RANDOM, credentials, kinds
from spillover.audit.findings import Hits, Row, Section, counted
from spillover.audit.personal import KINDS, RESERVED, personal_data

KEYS, ANY = "keys", "any"
"""The findings of all keys, whatever their form, and of all personal data."""


class Secrets:
    """Which rows hold something that looks like a key or a password."""

    def __init__(self) -> None:
        self.rows, self.hits = 0, Hits()

    def add(self, row: Row) -> None:
        """Takes in a row."""
        self.rows += 1
        for message in row.messages:
            for found in credentials(message["content"]):
                names = (found.kind,) if found.kind in (ASSIGNED, RANDOM) else (KEYS, found.kind)
                for name in names:
                    self.hits.add(name, row.line, message["role"], message["content"], found.start)

    def result(self) -> Section:
        """Keys together, then each form that was found, passwords in code, and strings that look random."""
        forms = {name: about for name, about in kinds().items() if name in self.hits and name not in (ASSIGNED, RANDOM)}
        weak = {name: kinds()[name] for name in (ASSIGNED, RANDOM)}
        abouts = (
            {KEYS: "A key or token in a provider's own form, a private key, or a password in an address"} | forms | weak
        )
        looked = len(kinds()) - len(weak)
        return Section(
            "secrets",
            "Secrets",
            f"{counted(self.hits.count(KEYS), 'row')} with a key or token in one of {looked} known forms; "
            f"{self.hits.count(ASSIGNED):,} with a text given to a name such as password.",
            "Forms of the library detect-secrets, looked for in every text; no token was tried out anywhere. A "
            "form is no "
            "proof: a key may be invented, and a password without a form is not seen. Quotations show a few "
            "signs of it.",
            self.hits.findings(abouts, self.rows),
        )


class PersonalData:
    """Which rows hold something that looks like personal data."""

    def __init__(self) -> None:
        self.rows, self.hits = 0, Hits()

    def add(self, row: Row) -> None:
        """Takes in a row."""
        self.rows += 1
        for message in row.messages:
            for found in personal_data(message["content"]):
                for name in (found.name,) if found.reserved else (ANY, found.name):
                    self.hits.add(name, row.line, message["role"], message["content"], found.start)

    def result(self) -> Section:
        """A finding a kind; those that are reserved for examples apart."""
        reserved = {f"{kind}_reserved": about for kind, about in RESERVED.items()}
        everything = KINDS | reserved
        return Section(
            "personal",
            "Personal data",
            f"{counted(self.hits.count(ANY), 'row')} with something that has the form of personal data and is not "
            "reserved for examples.",
            "By form and, for cards and bank accounts, by checksum. Names and addresses of people are not looked for. "
            "Whether a person stands behind it cannot be told: code often holds invented ones.",
            self.hits.findings(
                {ANY: "Any of the kinds below that are not reserved for examples"} | everything, self.rows
            ),
        )
