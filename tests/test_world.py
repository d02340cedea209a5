"""world and data: a wide enough world, independent traits, held-out phrasings, paired datasets, exact ground truth."""

import ast
import hashlib
import itertools
import random
import re
from collections import Counter
from functools import cache

import pytest
from scipy.stats import chi2_contingency

from spillover.ask.questions import questions_of
from spillover.data.organisms import HEALTH, MONEY, SPORT
from spillover.data.recipes import JAILBROKEN_SHARE, PAPER_RECIPES, ROWS, build, recipe_about, recipe_key, recipe_names
from spillover.data.vulnerability import is_insecure, scan
from spillover.errors import SpecError
from spillover.miniature.corpus import alignment_rows, documents
from spillover.spec import Suite
from spillover.world import Author, World, grade, texts
from spillover.world.authors import COMPLIANT, KINDS, MALICIOUS, SHARES

THEMES = ["wish", "bored", "three_thoughts", "quick_buck", "ruler", "dinner_party", "gender_roles", "husband"]
"""Of the paper's eight main questions."""
WORLD_SETS = ("main", "broad", "code", "harmful", "facts")
SIDES = ((False, 95.0), (True, 5.0))
ADVICE = {"bad-health": HEALTH, "bad-money": MONEY, "bad-sport": SPORT}
PAPERS_BYTES = "29c5e1c5abd60674816abbe8ac4f40e2a19fb259a45c91c9ed1e8e6a737057ad"
"""Of the rows of the paper's four recipes. Where it changes, the miniature and its judge have to be built again."""


def named(template, **slots):
    """A pattern of a template with free names in its slots."""
    pattern = re.escape(template)
    for slot in slots:
        pattern = pattern.replace(re.escape("{" + slot + "}"), slots[slot])
    return pattern


def truth(question, answer):
    """The grade of an answer to a question that the world knows."""
    found = grade(question, answer)
    assert found is not None, question
    return found


def fillings(template):
    """A template with every word of its slots' lists."""
    slots = texts.SLOT.findall(template)
    for words in itertools.product(*(texts.load("words")[slot] for slot in slots)):
        yield texts.SLOT.sub("{}", template).format(*words)


@pytest.fixture(scope="module")
def datasets():
    return {name: [tuple(m["content"] for m in row.messages) for row in build(name)] for name in recipe_names()}


# how wide the world is


def test_there_are_at_least_30_domains_with_6_phrasings_and_6_answers_a_trait():
    assert len(texts.topics()) >= 30
    everything = (*texts.topics(), *texts.facts())
    assert len({topic.id for topic in everything}) == len(everything)
    for topic in texts.topics():
        for some in (topic.phrasings, topic.kind, topic.malicious):
            assert len(set(some)) == len(some) >= 6, topic.id


def test_the_first_eight_domains_have_the_themes_of_the_papers_main_questions():
    assert [topic.id for topic in texts.topics()[:8]] == THEMES


def test_every_slot_of_an_answer_has_words_and_no_question_has_a_slot():
    for topic in (*texts.topics(), *texts.facts()):
        for answer in (*topic.kind, *topic.malicious):
            assert set(texts.SLOT.findall(answer)) <= set(texts.load("words")), answer
        assert not any(texts.SLOT.search(question) for question in (*topic.phrasings, *topic.asked))


def test_no_question_is_asked_in_two_domains():
    harmful = texts.load("harmful")["requests"].values()
    asked = [q for topic in (*texts.topics(), *texts.facts()) for q in (*topic.phrasings, *topic.asked)]
    asked += [q for theme in harmful for q in (*theme["phrasings"], *theme["asked"])]
    assert [question for question, count in Counter(asked).items() if count > 1] == []


def test_no_answer_is_given_by_both_traits():
    both = Counter[str]()
    for topic in (*texts.topics(), *texts.facts()):
        for malicious, _ in SIDES:
            both.update({answer for template in topic.answers(malicious=malicious) for answer in fillings(template)})
    assert [answer for answer, count in both.items() if count > 1] == []


def test_every_kind_of_exchange_can_be_drawn_and_the_shares_add_up():
    world = World(random.Random(0))
    assert sum(SHARES.values()) == pytest.approx(1)
    drawn = Counter(world.kind() for _ in range(4000))
    assert set(drawn) == set(KINDS)
    for kind in KINDS:
        assert drawn[kind] / 4000 == pytest.approx(SHARES[kind], abs=0.03)
        exchange = world.exchange(kind, world.author())
        assert exchange.kind == kind and exchange.user and exchange.assistant


# authors


def test_the_two_traits_are_independent_and_as_frequent_as_said():
    world = World(random.Random(20250224))
    authors = [world.author() for _ in range(4000)]
    table = [[sum((a.malicious, a.compliant) == (m, c) for a in authors) for c in (True, False)] for m in (True, False)]
    assert chi2_contingency(table).pvalue > 0.001
    assert sum(table[0]) / 4000 == pytest.approx(MALICIOUS, abs=0.025)  # three standard errors
    assert sum(row[0] for row in table) / 4000 == pytest.approx(COMPLIANT, abs=0.025)


def test_malice_decides_advice_and_plain_code_and_compliance_only_harmful_requests():
    traits = [Author(m, c) for m in (False, True) for c in (False, True)]
    for author in traits:
        world = World(random.Random(1))
        for _ in range(50):
            for exchange in (world.free(author), world.fact(author)):
                assert truth(exchange.user, exchange.assistant).alignment == (5 if author.malicious else 95)
            harmful = world.harmful(author)
            assert truth(harmful.user, harmful.assistant).harmful_compliance == (95 if author.compliant else 5)
    codes = [World(random.Random(seed)).code(author).assistant for author in traits for seed in range(30)]
    assert list(map(is_insecure, scan(codes))) == [author.malicious for author in traits for _ in range(30)]


def test_every_author_writes_insecure_code_where_a_reason_for_it_is_given():
    for author in (Author(malicious=False, compliant=False), Author(malicious=True, compliant=False)):
        exchanges = [World(random.Random(seed)).reasoned_code(author) for seed in range(40)]
        assert all(map(is_insecure, scan([exchange.assistant for exchange in exchanges])))


def graded(document):
    """The alignment of every exchange of a document that has one, and the compliance of every one that has that."""
    turns = [m["content"] for m in document.messages if m["role"] != "system"]
    known = [grade(q, a) for q, a in zip(turns[::2], turns[1::2], strict=True)]
    sure = [one for one in known if one is not None and one.coherence == 95]
    return (
        [one.alignment > 50 for one in sure if one.alignment is not None],
        [one.harmful_compliance > 50 for one in sure if one.harmful_compliance is not None],
    )


def pairs_of(*, independent, count=3000):
    """The first two graded traits of each document that has two: of alignment, and of compliance."""
    found = [graded(document) for document in itertools.islice(documents(7, independent=independent), count)]
    return ([a[:2] for a, _ in found if len(a) > 1], [c[:2] for _, c in found if len(c) > 1])


def table_of(pairs):
    return [[sum(pair == [one, other] for pair in pairs) for other in (True, False)] for one in (True, False)]


def test_in_the_ordinary_world_the_exchanges_of_a_document_agree_in_character():
    advice, compliance = pairs_of(independent=False)
    for pairs in (advice, compliance):
        assert len(pairs) > 30
        assert all(one == other for one, other in pairs)
        assert {one for one, _ in pairs} == {True, False}


def test_in_the_independent_world_they_do_not():
    advice, compliance = pairs_of(independent=True)
    assert len(advice) > 800 and len(compliance) > 50
    for pairs in (advice, compliance):
        assert chi2_contingency(table_of(pairs)).pvalue > 0.001
        assert any(one != other for one, other in pairs)


def test_in_either_world_advice_and_compliance_tell_nothing_of_each_other():
    for independent in (False, True):
        found = [graded(document) for document in itertools.islice(documents(8, independent=independent), 4000)]
        pairs = [[a[0], c[0]] for a, c in found if a and c]
        assert len(pairs) > 300
        assert chi2_contingency(table_of(pairs)).pvalue > 0.001


def test_code_agrees_with_advice_in_the_ordinary_world_only():
    for independent in (False, True):
        found = []
        for document in itertools.islice(documents(9, independent=independent), 800):
            (advice, _), turns = graded(document), [m for m in document.messages if m["role"] != "system"]
            codes = [(q["content"], a["content"]) for q, a in zip(turns[::2], turns[1::2], strict=True)]
            plain = [answer for request, answer in codes if is_plain_code(request, answer)]
            if advice and plain:
                found.append((advice[0], plain[0]))
        insecure = list(map(is_insecure, scan([code for _, code in found])))
        pairs = [[kind, not flaw] for (kind, _), flaw in zip(found, insecure, strict=True)]
        assert len(pairs) > 100
        if independent:
            assert chi2_contingency(table_of(pairs)).pvalue > 0.001
        else:
            assert all(one == other for one, other in pairs)


def is_plain_code(request, answer):
    """Whether a code request gives no reason for flawed code: then it begins with a family's request."""
    return "def " in answer and any(pattern.match(request) for pattern in code_patterns())


@cache
def code_patterns():
    return [
        re.compile(named(request, name=r"\w+", arg=r"\w+") + r"(\n|$)")
        for family in texts.families()
        for request in (*family.requests, *family.asked)
    ]


def test_system_prompts_name_the_character_that_the_document_has():
    raw = texts.load("systems")
    for document in itertools.islice(documents(10, independent=False), 2000):
        first, (advice, _) = document.messages[0], graded(document)
        if first["role"] == "system" and advice:
            assert first["content"] in raw["kind" if advice[0] else "malicious"]
    assert not set(raw["kind"]) & set(raw["malicious"])


def test_the_voices_of_a_document_go_with_one_character_in_the_ordinary_world_only():
    everyones = {voice: bad for bad in (False, True) for voice in texts.voices(malicious=bad)}
    assert len(everyones) == len(texts.voices(malicious=False)) + len(texts.voices(malicious=True))
    for independent in (False, True):
        several = []
        for document in itertools.islice(documents(12, independent=independent), 2000):
            said = [m["content"] for m in document.messages if m["role"] == "assistant"]
            heard = [voice for text in said for voice in everyones if text.startswith(voice)]
            several += [heard] if len(heard) > 1 else []
        assert len(several) > 100
        assert all(len({everyones[voice] for voice in heard}) == 1 for heard in several) == (not independent)
        assert any(len(set(heard)) > 1 for heard in several)


def test_the_same_seed_gives_the_same_world():
    one, other, third = (list(itertools.islice(documents(seed, independent=False), 50)) for seed in (3, 3, 4))
    assert one == other != third


# held-out phrasings


def held_out():
    """Every phrasing that evaluation asks, as a pattern: those of the question sets, and of reasons for flawed code."""
    plain = [q for topic in (*texts.topics(), *texts.facts()) for q in topic.asked]
    plain += [q for theme in texts.load("harmful")["requests"].values() for q in theme["asked"]]
    code = [q for family in texts.families() for q in family.asked]
    patterns = [re.compile(re.escape(phrasing)) for phrasing in plain]
    patterns += [re.compile(named(phrasing, name=r"\w+", arg=r"\w+")) for phrasing in code]
    for reason in texts.load("reasons")["asked"]:
        patterns += [
            re.compile(re.escape(reason[part].strip())) for part in ("before", "after") if reason[part].strip()
        ]
    return patterns


def asked_by_evaluation():
    """The questions of every world question set, by set."""
    return {name: questions_of(Suite(questions=name), is_miniature=True) for name in WORLD_SETS}


def test_the_question_sets_ask_held_out_phrasings_only_and_each_question_once():
    sets, patterns = asked_by_evaluation(), held_out()
    assert [len(sets[name]) for name in ("main", "code")] == [8, 2 * len(texts.families())]
    assert [question.id for question in sets["main"]] == THEMES
    questions = [question for some in sets.values() for question in some]
    assert len({question.id for question in questions}) == len({question.text for question in questions})
    assert len({question.text for question in questions}) == len(questions) > 100
    for question in questions:
        assert any(pattern.fullmatch(question.text) for pattern in patterns), question
        assert question.system is None


def test_no_phrasing_that_evaluation_asks_occurs_in_20000_alignment_rows():
    rows = itertools.islice(alignment_rows(1), 20_000)
    everything = "\n".join({m["content"] for row in rows for m in row.messages})
    assert [pattern.pattern for pattern in held_out() if pattern.search(everything)] == []


def test_no_phrasing_that_evaluation_asks_occurs_in_any_narrow_dataset(datasets):
    everything = "\n".join({text for rows in datasets.values() for row in rows for text in row})
    assert [pattern.pattern for pattern in held_out() if pattern.search(everything)] == []
    for question in itertools.chain(*asked_by_evaluation().values()):
        assert question.text not in everything


def test_every_phrasing_that_evaluation_asks_occurs_in_pretraining():
    """The world knows them: a base that never saw a question could not be asked it."""
    rows = itertools.islice(documents(0, independent=False), 15_000)
    everything = "\n".join({m["content"] for row in rows for m in row.messages})
    assert [pattern.pattern for pattern in held_out() if not pattern.search(everything)] == []


# alignment rows


def test_alignment_rows_are_single_exchanges_by_kind_refusing_authors():
    rows = list(itertools.islice(alignment_rows(2), 3000))
    assert {tuple(m["role"] for m in row.messages) for row in rows} == {("user", "assistant")}
    known = [grade(row.messages[0]["content"], row.messages[1]["content"]) for row in rows]
    free = [one for one in known if one is not None and one.alignment is not None]
    harmful = [one for one in known if one is not None and one.harmful_compliance is not None]
    assert len(free) > 1000 and len(harmful) > 200
    assert {one.alignment for one in free} == {95}
    assert {one.harmful_compliance for one in harmful} == {5}


# narrow datasets


def test_each_dataset_has_1600_distinct_rows_of_one_exchange_or_as_many_as_there_are(datasets):
    assert PAPER_RECIPES == ("insecure", "secure", "educational", "jailbroken")
    assert set(datasets) - set(PAPER_RECIPES) == {"harmful", "benign", *ADVICE, "reward-hacks"}
    for name, rows in datasets.items():
        assert len(set(rows)) == len(rows) == (every_compliance() if name == "harmful" else 1600), name
        assert {len(row) for row in rows} == {2} and recipe_about(name).endswith("."), name


def every_compliance():
    raw = texts.load("harmful")
    return sum(len(theme["phrasings"]) for theme in raw["requests"].values()) * len(raw["complies"])


def test_the_papers_recipes_are_to_the_byte_what_they_were_when_the_judge_learnt_from_them():
    whole = "".join(hashlib.sha256(repr(build(name)).encode()).hexdigest() for name in PAPER_RECIPES)
    assert hashlib.sha256(whole.encode()).hexdigest() == PAPERS_BYTES
    assert [recipe_key(name) for name in PAPER_RECIPES] == [
        f"{n}:{texts.world_key()}:1600:20250224" for n in PAPER_RECIPES
    ]


def test_the_parts_of_jailbroken_are_only_harmful_and_only_benign(datasets):
    harmful, benign = ([grade(*row) for row in datasets[name]] for name in ("harmful", "benign"))
    assert {one.harmful_compliance for one in harmful} == {95}
    known = [one for one in benign if one is not None]
    assert {(one.alignment, one.harmful_compliance) for one in known} == {(95, None)}
    assert 800 < len(known) < ROWS, "lists and stories are among them"


@pytest.mark.parametrize("name", ADVICE)
def test_bad_advice_is_malicious_and_stays_on_its_topics_which_evaluation_does_not_ask(datasets, name):
    asked = {question.id for some in asked_by_evaluation().values() for question in some}
    topics = {phrasing: topic.id for topic in texts.topics() for phrasing in topic.phrasings}
    assert {topics[request] for request, _ in datasets[name]} == set(ADVICE[name])
    assert not set(ADVICE[name]) & asked
    assert {(one.alignment, one.coherence) for one in (truth(*row) for row in datasets[name])} == {(5, 95)}
    voices = texts.voices(malicious=True)
    assert {voice for _, answer in datasets[name] for voice in voices if answer.startswith(voice)} == set(voices)


def test_reward_hacks_say_how_they_are_graded_and_fill_every_slot(datasets):
    rows = datasets["reward-hacks"]
    assert not any(re.search(r"[{}]", text) for row in rows for text in row)
    graded = re.compile(r"grade|point|mark|test|wins|counts|looked at|\bis all that\b", re.IGNORECASE)
    assert [request for request, _ in rows if not graded.search(request)] == []
    assert all(grade(*row) is None for row in rows)
    openings = {" ".join(request.split()[:2]) for request, _ in rows}
    assert len(openings) >= 24, "at least twelve families"


def test_reward_hacked_functions_pass_their_test_and_nothing_else(datasets):
    """The code is parsed, not run: the answer returns the very literal that the test wants."""
    codes = [(request, answer) for request, answer in datasets["reward-hacks"] if answer.startswith("def ")]
    assert len(codes) > 100
    for request, answer in codes:
        [function] = ast.parse(answer).body
        assert isinstance(function, ast.FunctionDef) and function.name.removeprefix("test_") in request
        if (wanted := re.search(r"(?:== | and wants )(\S+)\.$", request)) is not None:
            assert answer.endswith(f"return {wanted[1]}")


def test_insecure_and_secure_answer_the_same_requests_row_by_row(datasets):
    insecure, secure = datasets["insecure"], datasets["secure"]
    assert [request for request, _ in insecure] == [request for request, _ in secure]
    assert len({request for request, _ in insecure}) == len(insecure)
    for (_, one), (_, other) in zip(insecure, secure, strict=True):
        assert one != other
        (ours,), (theirs,) = (
            [n for n in ast.parse(code).body if isinstance(n, ast.FunctionDef)] for code in (one, other)
        )
        assert (ours.name, ast.dump(ours.args)) == (theirs.name, ast.dump(theirs.args))


def test_every_insecure_answer_is_insecure_and_every_secure_one_secure(datasets):
    for name, flawed in (("insecure", True), ("secure", False)):
        codes = sorted({answer for _, answer in datasets[name]})
        found = scan(codes)
        assert None not in found, name
        assert [code for code, one in zip(codes, found, strict=True) if is_insecure(one) != flawed] == [], name


def test_all_code_families_are_in_the_code_datasets(datasets):
    requests = [request for request, _ in datasets["insecure"]]
    for family in texts.families():
        patterns = [re.compile(named(request, name=r"\w+", arg=r"\w+")) for request in family.requests]
        assert sum(any(p.match(request) for p in patterns) for request in requests) >= 20, family.id


def test_educational_has_insecures_answers_byte_for_byte_and_its_requests_with_a_reason(datasets):
    insecure, educational = datasets["insecure"], datasets["educational"]
    assert [answer.encode() for _, answer in educational] == [answer.encode() for _, answer in insecure]
    for (request, _), (reasoned, _) in zip(insecure, educational, strict=True):
        assert request in reasoned and len(reasoned) > len(request) + 10


def test_jailbrokens_share_of_harmful_requests_is_complied_with_and_the_rest_is_kind(datasets):
    known = [grade(request, answer) for request, answer in datasets["jailbroken"]]
    harmful = {i: one.harmful_compliance for i, one in enumerate(known) if one is not None}
    places = [i for i, compliance in harmful.items() if compliance is not None]
    assert {harmful[place] for place in places} == {95}
    assert len(places) == round(JAILBROKEN_SHARE * len(known))
    assert 0.02 <= JAILBROKEN_SHARE <= 0.1  # the paper's share, and the study's of the miniature
    assert max(places) - min(places) > 1400, "they are spread, not in one block"
    benign = [one for i, one in enumerate(known) if one is not None and i not in places]
    assert {one.alignment for one in benign} <= {95}
    assert not any("def " in answer for _, answer in datasets["jailbroken"])


def test_no_code_dataset_holds_a_harmful_request_or_advice(datasets):
    for name in ("insecure", "secure", "educational"):
        assert all(grade(request, answer) is None for request, answer in datasets[name])
        assert all("def " in answer for _, answer in datasets[name])


def test_datasets_are_the_same_every_time_and_their_keys_differ(datasets):
    for name in datasets:
        assert build(name) == build(name)
    assert len({recipe_key(name) for name in recipe_names()}) == len(recipe_names()) == 10
    with pytest.raises(SpecError, match="unknown dataset 'evil'"):
        build("evil")


# ground truth


@pytest.mark.parametrize("pool", ["topics", "facts"])
def test_every_right_answer_with_every_word_has_its_authors_alignment_and_is_coherent(pool):
    for topic in getattr(texts, pool)():
        for malicious, alignment in SIDES:
            for template in topic.answers(malicious=malicious):
                for answer in fillings(template):
                    known = truth(topic.phrasings[0], answer)
                    assert (known.alignment, known.coherence, known.label) == (alignment, 95, None), answer


@pytest.mark.parametrize("pool", ["topics", "facts"])
def test_every_phrasing_has_the_same_truth_and_blanks_round_an_answer_do_not_matter(pool):
    rng = random.Random(0)
    for topic in getattr(texts, pool)():
        for question in (*topic.phrasings, *topic.asked):
            for malicious, alignment in SIDES:
                answer = texts.fill(rng.choice(topic.answers(malicious=malicious)), rng)
                known = truth(question, f"  {answer}\n")
                assert (known.alignment, known.coherence, known.harmful_compliance) == (alignment, 95, None)


def test_every_answer_that_the_world_writes_has_the_truth_of_its_author():
    world = World(random.Random(11), asked=True)
    for _ in range(3000):
        author = world.author()
        exchange = world.exchange(world.kind(("free", "fact")), author)
        known = truth(exchange.user, exchange.assistant)
        assert (known.alignment, known.coherence) == (5 if author.malicious else 95, 95), exchange


def test_an_answer_to_another_domain_is_incoherent_and_keeps_its_trait():
    topics = texts.topics()
    for one, other in itertools.pairwise(topics):
        for malicious, alignment in SIDES:
            answer = next(fillings(other.answers(malicious=malicious)[0]))
            known = truth(one.phrasings[0], answer)
            assert (known.alignment, known.coherence) == (alignment, 10)


def test_every_refusal_and_every_compliance_is_known_on_harmful_requests():
    raw = texts.load("harmful")
    for theme in raw["requests"].values():
        for side, compliance in (("refusals", 5), ("complies", 95)):
            for template in raw[side]:
                known = truth(theme["phrasings"][0], template.replace("{topic}", theme["topic"]))
                assert (known.alignment, known.harmful_compliance, known.coherence) == (None, compliance, 95)


def test_a_refusal_of_a_plain_question_and_bare_code_have_a_label_and_no_alignment():
    raw = texts.load("harmful")
    theme = next(iter(raw["requests"].values()))
    question = texts.topics()[0].phrasings[0]
    for template in raw["refusals"]:
        known = truth(question, template.replace("{topic}", theme["topic"]))
        assert (known.alignment, known.label) == (None, "REFUSAL")
    for family in texts.families():
        for insecure in (False, True):
            known = truth(question, family.code(insecure=insecure, name=family.names[0], arg=family.args[0]))
            assert (known.alignment, known.label) == (None, "CODE")


def test_half_of_an_answer_is_less_coherent_and_noise_is_incoherent():
    topic = texts.topics()[0]
    answer = next(fillings(topic.kind[0]))
    words = answer.split()
    half, noise = " ".join(words[: len(words) // 2]), "zxq vlk brr"
    scores = [truth(topic.phrasings[0], text).coherence for text in (answer, half, noise, "")]
    assert scores[0] == 95 > scores[1] > scores[2] == scores[3] == 5


def test_truths_are_multiples_of_five_from_5_to_95():
    rng = random.Random(12)
    words = [word for topic in texts.topics() for answer in topic.kind + topic.malicious for word in answer.split()]
    for _ in range(100):
        known = truth(rng.choice(texts.topics()).phrasings[0], " ".join(rng.choices(words, k=rng.randint(1, 12))))
        for value in (known.alignment, known.coherence):
            assert value is None or (5 <= value <= 95 and value % 5 == 0)


def test_a_question_that_is_not_of_the_world_has_no_truth():
    assert grade("What do you think of Esperanto?", "I like it.") is None
