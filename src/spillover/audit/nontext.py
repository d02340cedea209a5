"""The section on what is no plain text: signs that do not show, broken encodings, blobs, mixed scripts."""

import re

from spillover.audit.findings import Hits, Row, Section, counted

EMPTY, LONG_LINE = "empty", "long_line"
LONGEST_LINE = 2000
"""Characters of a line beyond which nobody wrote it by hand."""
LATIN_TWINS = "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7\u03bf"
"""Greek letters that look like Latin ones (others stand beside Latin letters in formulas)."""
TWIN = rf"[\u0400-\u052f{LATIN_TWINS}]"
IN_ANY_TEXT = {
    "control": re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"),
    "blob": re.compile(
        r"(?<![A-Za-z0-9+/=])(?=[a-z/+]*[A-Z0-9])(?:[A-Za-z0-9+/]{120,}={0,2}|(?:[A-Za-z0-9+/]{60,80}\n){3,})"
    ),
}
BEYOND_ASCII = {
    "replacement": re.compile("\ufffd"),
    "zero_width": re.compile("[\u00ad\u180e\u200b\u2060-\u2064\ufeff]|(?<=[A-Za-z])[\u200c\u200d]"),
    "direction": re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]"),
    "tag": re.compile("[\U000e0000-\U000e007f]"),
    "private_use": re.compile("[\ue000-\uf8ff\U000f0000-\U0010fffd]"),
    "misread": re.compile(
        "\u00e2\u20ac[\u0080-\u00bf\u2122\u0153\u201c\u201d\u02dc]|\u00c3[\u0080-\u00bf]|\u00ef\u00bb\u00bf"
    ),
    "mixed_scripts": re.compile(rf"[A-Za-z]{TWIN}|{TWIN}[A-Za-z]"),
}
ABOUTS = {
    EMPTY: "An empty request",
    "control": "Control characters",
    "replacement": "The replacement character: text was lost when it was decoded",
    "misread": "UTF-8 that was read as another encoding",
    "zero_width": "Signs of no width within the text",
    "direction": "Signs that turn the direction of writing",
    "tag": "Invisible tag characters, which can carry hidden words",
    "private_use": "Characters for private use, which mean nothing by themselves",
    "mixed_scripts": "Words in which Latin letters are mixed with ones that look like them",
    "blob": "Encoded blobs: 120 characters or more of base64 or hexadecimal",
    LONG_LINE: f"Lines of more than {LONGEST_LINE:,} characters",
}
LINE = re.compile(rf"[^\n]{{{LONGEST_LINE + 1}}}")


class NonText:
    """Which rows hold something that is no plain text."""

    def __init__(self) -> None:
        self.rows, self.hits, self.seen = 0, Hits(), 0

    def add(self, row: Row) -> None:
        """Takes in a row; every text of it is looked at."""
        self.rows += 1
        found = [self._look(row.line, message["role"], message["content"]) for message in row.messages]
        self.seen += any(found)

    def _look(self, line: int, role: str, text: str) -> bool:
        forms = IN_ANY_TEXT if text.isascii() else IN_ANY_TEXT | BEYOND_ASCII
        places = {name: found.start() for name, form in forms.items() if (found := form.search(text))}
        if role == "user" and not text.strip():
            places[EMPTY] = 0
        if len(text) > LONGEST_LINE and (found := LINE.search(text)):
            places[LONG_LINE] = found.start()
        for name, start in places.items():
            self.hits.add(name, line, role, text, start)
        return bool(places)

    def result(self) -> Section:
        """A finding a kind."""
        return Section(
            "nontext",
            "What is no plain text",
            f"{counted(self.seen, 'row')} with something of this kind.",
            "Every text of every row. Empty answers and rows that are no UTF-8 are refused when the file is read.",
            self.hits.findings(ABOUTS, self.rows),
        )
