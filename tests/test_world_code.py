"""The code tasks of the synthetic world: what code.yaml promises, checked with ast and with bandit itself."""

import ast
import builtins
import keyword
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

FILE = Path(__file__).parents[1] / "src/spillover/world/code.yaml"
KEYS = {"rule", "template", "requests", "asked", "names", "args", "secure", "insecure"}
FORBIDDEN = re.compile(
    r"secur|safe|vulnerab|inject|exploit|attack|danger|verif|trust|malicious|harm|weak|strong|risk|protect|escape|hack",
    re.IGNORECASE,
)
TO_COMPLETE = ("Complete ", "Fill in ")


class Family(NamedTuple):
    key: str
    rule: str
    template: bool
    requests: list[str]
    asked: list[str]
    names: list[str]
    args: list[str]
    secure: str
    insecure: str

    def filled(self) -> Iterator[tuple[str, str, str]]:
        """Both forms with each of the names and of the args at least once."""
        for i in range(max(len(self.names), len(self.args))):
            name, arg = self.names[i % len(self.names)], self.args[i % len(self.args)]
            yield arg, self.secure.format(name=name, arg=arg), self.insecure.format(name=name, arg=arg)


RAW: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="ascii"))
FAMILIES = [Family(key, **entry) for key, entry in RAW.items()]
each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.key)


def function_of(code: str) -> ast.FunctionDef:
    (function,) = [node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)]
    return function


def head_of(code: str) -> list[str]:
    """The lines up to and including the def line: what a code template shows."""
    lines = code.splitlines()
    return lines[: 1 + next(i for i, line in enumerate(lines) if line.startswith("def "))]


def words_of(sentence: str) -> set[str]:
    """Content words, cut to their stem roughly, so that `pings` is `ping`."""
    return {word[:4] for word in re.findall(r"[a-z0-9]+", re.sub(r"\{\w+\}", "", sentence.lower())) if len(word) > 2}


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What bandit reports at MEDIUM severity or above for each distinct piece of code, found in one run."""
    folder = tmp_path_factory.mktemp("code")
    codes = sorted({code for family in FAMILIES for _, *forms in family.filled() for code in forms})
    paths = {str(folder / f"code{i}.py"): code for i, code in enumerate(codes)}
    for path, code in paths.items():
        Path(path).write_text(code + "\n", encoding="ascii")
    bandit = import_module("bandit.core.manager").BanditManager(
        import_module("bandit.core.config").BanditConfig(), "file"
    )
    bandit.discover_files(list(paths))
    bandit.run_tests()
    assert not bandit.skipped
    assert len(bandit.files_list) == len(codes)
    reported: dict[str, list[str]] = {code: [] for code in codes}
    for issue in bandit.get_issue_list(sev_level="MEDIUM", conf_level="LOW"):
        reported[paths[issue.fname]].append(issue.test_id)
    return reported


def test_at_least_24_families_cover_at_least_13_rules_and_half_can_show_a_template() -> None:
    assert len(FAMILIES) >= 24
    assert len({family.rule for family in FAMILIES}) >= 13
    assert 2 * sum(family.template for family in FAMILIES) >= len(FAMILIES)


def test_no_sentence_occurs_twice_in_the_file() -> None:
    sentences = [sentence for family in FAMILIES for sentence in (*family.requests, *family.asked)]
    assert len(sentences) == len(set(sentences))


@each_family
def test_every_family_has_all_its_parts(family: Family) -> None:
    assert set(RAW[family.key]) == KEYS
    assert re.fullmatch(r"B\d{3}", family.rule)
    assert isinstance(family.template, bool)
    assert len(family.requests) >= 8
    assert len(family.asked) == 2
    assert len(set(family.names)) == len(family.names) >= 5
    assert len(set(family.args)) == len(family.args) >= 5


@each_family
def test_insecure_code_has_exactly_its_rule_and_secure_code_nothing(
    family: Family, findings: dict[str, list[str]]
) -> None:
    for _, secure, insecure in family.filled():
        assert findings[insecure] == [family.rule]
        assert findings[secure] == []


@each_family
def test_both_forms_parse_are_short_and_share_a_signature_and_use_the_argument(family: Family) -> None:
    for arg, secure, insecure in family.filled():
        for code in (secure, insecure):
            assert 2 <= len(code.splitlines()) <= 5
            assert len(code) < 160
            assert not re.search(r"#|\"\"\"|->|\t", code)
            assert arg in [parameter.arg for parameter in function_of(code).args.args]
            assert arg in {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
        ours, theirs = function_of(secure), function_of(insecure)
        assert (ours.name, ast.dump(ours.args)) == (theirs.name, ast.dump(theirs.args))


@each_family
def test_the_template_flag_says_whether_both_forms_begin_alike(family: Family) -> None:
    assert family.template == (head_of(family.secure) == head_of(family.insecure))


@each_family
def test_free_names_are_identifiers_that_shadow_nothing(family: Family) -> None:
    free = {*family.names, *family.args}
    for word in free:
        assert word.isidentifier()
        assert not keyword.iskeyword(word)
        assert word not in dir(builtins)
    for form in (family.secure, family.insecure):
        code = form.format(name="free_name", arg="free_arg")
        nodes = list(ast.walk(ast.parse(code)))
        used = {node.id for node in nodes if isinstance(node, ast.Name)}
        used |= {node.arg for node in nodes if isinstance(node, ast.arg)}
        used |= {alias.name for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names}
        assert not free & used


@each_family
def test_requests_are_plain_sentences_that_do_not_give_security_away(family: Family) -> None:
    for sentence in (*family.requests, *family.asked):
        assert sentence.isascii()
        assert sentence[0].isupper()
        assert sentence[-1] in ".?"
        assert 8 <= len(sentence.split()) <= 20
        assert set(re.findall(r"\{(\w*)\}", sentence)) in ({"name"}, {"name", "arg"})
    texts = [*family.requests, *family.asked, *family.names, *family.args]
    assert not [text for text in texts if FORBIDDEN.search(text)]


@each_family
def test_half_of_the_requests_name_the_argument_and_two_ask_to_complete(family: Family) -> None:
    assert 2 * sum("{arg}" in request for request in family.requests) == len(family.requests)
    assert sum(request.startswith(TO_COMPLETE) for request in family.requests) >= 2


@each_family
def test_asked_is_held_out_yet_shares_key_words(family: Family) -> None:
    everything = {request for other in FAMILIES for request in other.requests}
    known = {word for request in family.requests for word in words_of(request)}
    for sentence in family.asked:
        assert sentence not in everything
        assert len(words_of(sentence) & known - {"func", "pyth", "with", "that"}) >= 2
