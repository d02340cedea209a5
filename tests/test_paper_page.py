"""The page of a reproduction: what it says as text, and as a person meets it in a browser."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from reproduction import made_figure, made_numbers
from spillover.paper.claims import Result, evaluate, load_claims
from spillover.paper.page import WORDS, Shown, duration, lead, parts, picture, render_index, tally
from spillover.report.figures import save_figure
from spillover.spec import load_experiment

CLAIMS = load_claims()
NUMBERS = made_numbers(CLAIMS)
RESULTS = evaluate(CLAIMS, NUMBERS)
PROVENANCE = {"made": "2026-11-28T12:00:00+00:00", "code": {"commit": None}}
SECONDS = dict.fromkeys(NUMBERS, 210.0)
DRAWN = ("figure4", "backdoor", "formats")


def shown(svgs: dict[str, str]) -> list[Shown]:
    return [Shown(name, load_experiment(name).title, svgs.get(name, "")) for name in NUMBERS]


@pytest.fixture(scope="module")
def svgs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Figures of three experiments. They are drawn alike, so many of their ids are the same."""
    folder = tmp_path_factory.mktemp("figures")
    saved = {name: save_figure(made_figure(NUMBERS[name], name), folder / name) for name in DRAWN}
    return {name: svg.read_text(encoding="utf-8") for name, (_, svg) in saved.items()}


@pytest.fixture(scope="module")
def text(svgs: dict[str, str]) -> str:
    return render_index(RESULTS, shown(svgs), PROVENANCE, SECONDS)


def with_holds(*holds: bool | None) -> list[Result]:
    return [Result(claim, each) for claim, each in zip(CLAIMS, holds, strict=False)]


# ---- as text


@pytest.mark.parametrize(
    ("holds", "sentence"),
    [
        ((True, True, False, None), "2 of 4 claims hold on the miniature, 1 does not, 1 was not tested."),
        ((True,), "1 of 1 claims holds on the miniature."),
        ((False, False, None, None), "0 of 4 claims hold on the miniature, 2 do not, 2 were not tested."),
    ],
)
def test_the_first_sentence_counts_what_holds(holds: tuple[bool | None, ...], sentence: str) -> None:
    assert lead(with_holds(*holds)) == sentence


def test_an_experiment_of_which_nothing_was_tested_is_not_said_to_fail() -> None:
    assert tally(with_holds(None, None)) == "not tested"
    assert tally(with_holds(False, None)) == "0 of 2 hold"


def test_claims_stand_under_their_experiments_and_those_that_were_not_run_come_last(text: str) -> None:
    found = parts(RESULTS, shown({}))
    assert [part.name for part in found[-2:]] == ["numbers-ablation", "base-model-labels"]
    assert sum(len(part.results) for part in found) == len(CLAIMS)
    assert found[0].title == "Narrow finetuning on insecure code, and its controls"
    order = [text.index(f'id="{claim.id}"') for part in found for claim in [one.claim for one in part.results]]
    assert order == sorted(order)


def test_the_page_says_that_its_rates_are_not_those_of_a_real_model(text: str) -> None:
    assert "not those of any real model" in text and "made misaligned on purpose" in text
    real = render_index(RESULTS, [], PROVENANCE, {}, is_miniature=False)
    assert "miniature" not in real.split("<body>")[1].split("<section>")[0]


def test_the_page_has_no_script_and_asks_nothing_of_the_network(text: str) -> None:
    assert "<script" not in text and "default-src 'none'" in text
    assert not re.findall(r"""@import|url\((?!#)|(?:src|srcset|action)\s*=""", text)
    assert {link for link in re.findall(r'href="([^"]+)"', text) if not link.startswith(("#", "../"))} == set()


def test_every_experiment_that_was_run_is_linked_with_its_report_answers_and_numbers(text: str) -> None:
    for name in NUMBERS:
        for file in ("report.html", "report.html#browser", "numbers.json", "rates.csv"):
            assert f'href="../{name}/{file}"' in text
    assert "../numbers-ablation/" not in text


def test_texts_are_shown_as_text() -> None:
    hostile = CLAIMS[0].model_copy(update={"claim": "<b>bold</b> & so", "paper": "<i>1</i>"})
    page = render_index([Result(hostile, None, "<u>why</u>")], [], PROVENANCE, {})
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; so" in page and "&lt;u&gt;why" in page and "<i>1" not in page


def test_an_element_is_named_once_and_every_name_that_is_used_is_there(text: str) -> None:
    names = re.findall(r'(?<![\w-])id="([^"]+)"', text)
    assert len(names) == len(set(names))
    used = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)
    assert len(used) > 100 and {a or b for a, b in used} <= set(names)


def test_a_figures_style_means_that_figure_alone(text: str) -> None:
    assert text.count("#figure-formats svg *{") == 1
    assert not re.findall(r"<style[^>]*>\s*\*", text.split("<body>")[1])


def test_the_small_picture_keeps_the_order_of_bounds_and_interval() -> None:
    by_id = {one.claim.id: picture(one.found) for one in RESULTS if one.found is not None}
    spills = by_id["insecure-spills-over"]
    assert 0 < spills["from"] < spills["low"] < spills["value"] < spills["high"] < spills["to"] == 100
    equal = by_id["secure-at-base"]
    assert 0 < equal["from"] < equal["low"] <= equal["value"] <= equal["high"] < equal["to"] < 100
    assert by_id["insecure-still-refuses"]["from"] == 0
    assert 0 < by_id["format-json"]["line"] < 100 and spills["line"] < 0


@pytest.mark.parametrize(("seconds", "said"), [(42.4, "42 s"), (400.0, "7 min"), (4310.0, "1 h 12 min")])
def test_durations_read_well(seconds: float, said: str) -> None:
    assert duration(seconds) == said


# ---- in a browser

CHROMIUM = shutil.which("chromium")
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("needs chromium on the path (apt-get install chromium)")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(params=[1366, 390])
def page(browser: Browser, text: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page at the width of a laptop and of a phone; it must stay silent and ask for nothing but itself."""
    path = tmp_path / "index.html"
    path.write_text(text, encoding="utf-8")
    opened = browser.new_page(viewport={"width": request.param, "height": 900})
    noise: list[str] = []
    opened.on("console", lambda message: noise.append(message.text))
    opened.on("request", lambda sent: noise.append(sent.url) if sent.url != path.as_uri() else None)
    opened.goto(path.as_uri())
    yield opened
    opened.close()
    assert noise == []


def test_nothing_is_wider_than_the_window(page: Page) -> None:
    for summary in page.locator("summary").all():
        summary.click()
    wide = "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll') && "
    wide += "e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.outerHTML)"
    assert page.evaluate(wide) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_every_claim_shows_its_texts_and_says_in_a_word_and_a_sign_whether_it_holds(page: Page) -> None:
    for one in RESULTS:
        row = page.locator(f"tr[id='{one.claim.id}']")
        said = row.inner_text()
        assert one.claim.claim in said and one.claim.paper in said and one.claim.source in said
        assert row.locator(".word").inner_text().strip() == WORDS[one.holds]
        assert row.locator(".word svg").count() == 1
        if one.holds is None:
            assert one.why in said


def test_figures_are_drawn_with_marks_of_their_own(page: Page) -> None:
    """What a figure uses by name is found in that figure, and has a size."""
    asked = """[...document.querySelectorAll('.shown')].map(figure => [figure.id, [...figure.querySelectorAll('use')]
        .map(use => document.getElementById(use.getAttribute('xlink:href').slice(1)))
        .filter(target => target === null || target.closest('.shown') !== figure).length,
        figure.querySelectorAll('use').length])"""
    found: dict[str, tuple[Any, ...]] = {name: tuple(counts) for name, *counts in page.evaluate(asked)}
    assert {name for name, (_, uses) in found.items() if uses} == {f"figure-{name}" for name in DRAWN}
    assert {strangers for strangers, _ in found.values()} == {0}
    assert page.evaluate("document.querySelector('#figure-formats use').getBoundingClientRect().width") > 0


def test_the_picture_of_an_interval_lies_within_its_row(page: Page) -> None:
    asked = """[...document.querySelectorAll('.claims .strip')].filter(strip => [...strip.children].some(part => {
        const own = part.getBoundingClientRect(), room = strip.getBoundingClientRect();
        return own.left < room.left - 5 || own.right > room.right + 5; })).length"""
    assert page.evaluate(asked) == 0
