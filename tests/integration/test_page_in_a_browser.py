"""The page in a real browser: search, neighbours, the map, keys, colours, sizes, tokens."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from helpers.browser import Browser, chromium
from helpers.labelled import clustered_table
from helpers.serving import running, service_with
from selenium.webdriver.common.keys import Keys

from graphsys.deploy.lookup import neighbours
from graphsys.storage.embeddings import EmbeddingTable

ROWS = 300
HOSTILE = "<img src=x onerror=\"document.title='broken in'\">"
IDS = [HOSTILE, *(f"node-{number}" for number in range(1, ROWS))]
DEVICES = [(1280, 800, "light"), (390, 844, "dark"), (360, 740, "light")]
# The share of drawn pixels is read where the points are drawn: in the frame.
PAINTED = """
    const canvas = document.querySelector(".gl-canvas-context");
    const copy = document.createElement("canvas");
    [copy.width, copy.height] = [canvas.width, canvas.height];
    const pen = copy.getContext("2d");
    pen.drawImage(canvas, 0, 0);
    const pixels = pen.getImageData(0, 0, copy.width, copy.height).data;
    const colours = new Set();
    for (let at = 0; at < pixels.length; at += 4) {
      if (pixels[at + 3] > 150) colours.add([0, 1, 2].map((part) => pixels[at + part] >> 5).join());
    }
    return colours.size;
"""
CONTRAST = """
    const light = (colour) => {
      const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
      const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((v) => linear(v / 255));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (element) => {
      for (let at = element; at; at = at.parentElement) {
        const colour = getComputedStyle(at).backgroundColor;
        if (!/, 0\\)$|transparent/.test(colour)) return colour;
      }
      return "rgb(255, 255, 255)";
    };
    const faint = [];
    for (const element of document.querySelectorAll("body *")) {
      const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim() !== "");
      if (!own || element.closest("svg, noscript, .skip, .hidden")) continue;
      if (!element.checkVisibility({ visibilityProperty: true })) continue;
      const [a, b] = [light(getComputedStyle(element).color), light(ground(element))].sort((x, y) => y - x);
      if ((a + 0.05) / (b + 0.05) < 4.5) faint.push(`${element.tagName} ${element.className} ${element.textContent}`);
    }
    return faint;
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[EmbeddingTable, EmbeddingTable]:
    folder = tmp_path_factory.mktemp("tables")
    first = clustered_table(folder / "first", rows=ROWS, classes=4, ids=IDS)
    return first, clustered_table(folder / "second", rows=50, classes=2, seed=1)


@pytest.fixture(scope="module")
def url(tables: tuple[EmbeddingTable, EmbeddingTable]) -> Iterator[str]:
    with running(service_with(*tables)) as address:
        yield address


def drawn(browser: Browser) -> str:
    return str(browser.until(lambda: browser.one("#canvas").get_attribute("data-points"), "the map"))


def links(browser: Browser) -> list[str]:
    return [str(link.get_attribute("data-id")) for link in browser.all("#near a")]


def asked(browser: Browser) -> str:
    return parse_qs(urlsplit(browser.driver.current_url).query)["id"][0]


@pytest.mark.parametrize(("width", "height", "scheme"), DEVICES)
def test_an_id_is_searched_and_its_neighbour_opened(
    browser: Browser, url: str, tables: tuple[EmbeddingTable, EmbeddingTable], width: int, height: int, scheme: str
) -> None:
    browser.emulate(width, height, scheme)
    browser.driver.get(url)
    browser.asked_hosts()
    browser.driver.get(url)
    assert drawn(browser) == str(ROWS)
    browser.one("#query").send_keys("node-42", Keys.ENTER)
    browser.heading("node-42")
    (expected,) = neighbours(tables[0], ["node-42"], 10)
    assert links(browser) == expected.ids
    assert browser.one("#near .score").text == f"{expected.scores[0]:.4f}"
    assert browser.one("#node-class").text == "labelled class 2"
    assert len(browser.all("#marks .near-ring")) == 10

    browser.one("#near a").click()
    browser.heading(str(expected.ids[0]))
    assert asked(browser) == expected.ids[0]
    (further,) = neighbours(tables[0], [expected.ids[0]], 10)
    assert links(browser) == further.ids

    browser.driver.back()
    browser.heading("node-42")
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.run(CONTRAST) == []
    ground = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(14, 18, 22)") == (scheme == "dark")
    assert browser.asked_hosts() == {urlsplit(url).netloc}
    assert browser.complaints() == []


def test_the_points_are_really_drawn(browser: Browser, url: str) -> None:
    browser.emulate(1280, 800, "light")
    browser.driver.get(url)
    drawn(browser)
    browser.driver.switch_to.frame(browser.one("#plot"))
    try:
        assert browser.until(lambda: browser.run(PAINTED), "painted points") >= 4  # a colour per class
        assert browser.run("return origin") == "null"
    finally:
        browser.driver.switch_to.default_content()


def test_a_point_of_the_map_opens_its_node(browser: Browser, url: str) -> None:
    browser.emulate(1280, 800, "light")
    browser.driver.get(f"{url}/?id=node-7")
    drawn(browser)
    browser.heading("node-7")
    here = browser.run(
        "const ring = document.querySelector('.near-ring').getBoundingClientRect();"
        "return [document.querySelector('.near-ring').dataset.id, ring.x + ring.width / 2, ring.y + ring.height / 2]"
    )
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
        where = {"type": kind, "x": here[1], "y": here[2], "button": "left", "clickCount": 1}
        browser.driver.execute_cdp_cmd("Input.dispatchMouseEvent", where)
        if kind == "mouseMoved":
            browser.until(lambda: browser.one("#tip").is_displayed(), "the name of the point")
            named = browser.one("#tip").text.partition(",")[0]
    browser.heading(named)  # several points may lie at one place
    assert asked(browser) == named


def test_everything_can_be_done_by_keys(browser: Browser, url: str) -> None:
    browser.driver.get(url)
    drawn(browser)
    body = browser.one("body")
    body.send_keys("/")
    browser.driver.switch_to.active_element.send_keys("node-12", Keys.ENTER)
    browser.heading("node-12")
    second = links(browser)[1]
    browser.driver.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    browser.driver.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    assert browser.driver.switch_to.active_element.get_attribute("data-id") == second
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    browser.heading(second)
    focused = browser.driver.switch_to.active_element
    assert focused.get_attribute("data-id") == links(browser)[0]
    assert browser.run("return getComputedStyle(arguments[0]).outlineStyle", focused) != "none"
    before = browser.run("return document.querySelector('.here-ring').getAttribute('cx')")
    browser.one("#canvas").send_keys(Keys.ARROW_RIGHT)
    browser.until(
        lambda: browser.run("return document.querySelector('.here-ring').getAttribute('cx')") != before, "a move"
    )
    assert browser.complaints() == []


def test_whatever_takes_the_focus_has_a_name(browser: Browser, url: str) -> None:
    browser.driver.get(f"{url}/?id=node-7")
    drawn(browser)
    browser.heading("node-7")
    shown = [
        item for item in browser.all("a, button, input, select, [tabindex='0'], svg[role=img]") if item.is_displayed()
    ]
    assert [item.get_attribute("outerHTML") for item in shown if not item.accessible_name] == []
    assert len(browser.all("main")) == len(browser.all("header")) == 1
    assert [title.text for title in browser.all("h2") if title.is_displayed()][:2] == ["Map", "node-7"]


def test_an_id_that_looks_like_markup_is_shown_as_text(browser: Browser, url: str) -> None:
    browser.driver.get(url)
    drawn(browser)
    browser.one("#query").send_keys(HOSTILE, Keys.ENTER)
    browser.heading(HOSTILE)
    assert browser.all("img") == []
    assert browser.driver.title == f"{HOSTILE} - graphsys"
    browser.one("#query").clear()
    browser.one("#query").send_keys("<b>nobody</b>", Keys.ENTER)
    browser.heading("No such node")
    assert "<b>nobody</b>" in browser.one("#hint").text
    assert browser.complaints() == []


def test_the_colours_can_be_changed_and_stay(browser: Browser, url: str) -> None:
    browser.emulate(1280, 800, "light")
    browser.driver.get(url)
    light = browser.run("return getComputedStyle(document.body).backgroundColor")
    browser.one("#theme").click()
    dark = browser.run("return getComputedStyle(document.body).backgroundColor")
    browser.driver.refresh()
    kept = browser.run("return getComputedStyle(document.body).backgroundColor")
    browser.run("localStorage.clear()")
    assert (light, dark, kept) == ("rgb(245, 246, 248)", "rgb(14, 18, 22)", "rgb(14, 18, 22)")


def test_another_table_is_activated_once_that_is_confirmed(
    browser: Browser, url: str, tables: tuple[EmbeddingTable, EmbeddingTable]
) -> None:
    browser.driver.get(url)
    drawn(browser)
    press = f"button[data-version='{tables[1].version}']"
    browser.one(press).click()
    browser.one("#confirm button[value=no]").click()
    assert browser.one("#fact-version").text == tables[0].version
    browser.one(press).click()
    browser.one("#confirm-yes").click()
    browser.until(lambda: browser.one("#fact-version").text == tables[1].version, "the other table")
    browser.until(lambda: browser.one("#canvas").get_attribute("data-points") == "50", "its map")
    assert browser.one("#answering").text == tables[1].version


def test_a_server_with_a_token_is_asked_with_it_and_it_goes_with_the_tab(
    browser: Browser, tables: tuple[EmbeddingTable, EmbeddingTable], tmp_path: Path
) -> None:
    token = "a-token-of-good-length"
    (tmp_path / "token").write_text(token + "\n")
    with running(service_with(tables[1], token_file=tmp_path / "token")) as address:
        browser.driver.get(address)
        browser.until(lambda: browser.one("#token").is_displayed(), "the question for a token")
        browser.one("#token").send_keys("wrong", Keys.ENTER)
        browser.until(lambda: browser.one("#ask-text").is_displayed(), "a second question")
        browser.one("#token").send_keys(token, Keys.ENTER)
        assert drawn(browser) == "50"
        kept = browser.run("return [Object.values(sessionStorage), Object.values(localStorage), document.cookie]")
        browser.driver.get("about:blank")
    assert kept == [[token], [], ""]
    assert all("401" in line for line in browser.complaints())
