"""The report in a real browser: quiet, offline, sortable, filterable, in both themes, on paper."""

import base64
import json
from itertools import pairwise

import pytest

from tests.support import browser, toy_report

pytestmark = [
    pytest.mark.skipif(not (browser.CHROMIUM and browser.DRIVER), reason=browser.MISSING),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page with all sections, and a profile that tries to be a script."""
    return toy_report.rich(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with browser.browser(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def shown(driver, page):
    driver.get("about:blank")
    driver.get_log("browser")
    browser.requests(driver)
    browser.opened(driver, page)
    return driver


def texts(driver, column, section="leaderboard"):
    return driver.execute_script(
        "return [...document.querySelectorAll(`#${arguments[0]} tbody tr`)]"
        ".filter(row => row.offsetParent).map(row => row.cells[arguments[1]].textContent.trim())",
        section,
        column,
    )


def head(driver, name, section="leaderboard"):
    heads = driver.find_elements("css selector", f"#{section} th button")
    return next(found for found in heads if found.text == name)


def choose(driver, key, value):
    driver.execute_script(
        "const s = document.querySelector(`select[data-filter=${arguments[0]}]`);"
        "s.value = arguments[1]; s.dispatchEvent(new Event('change'));",
        key,
        value,
    )


def test_nothing_is_asked_of_the_network_and_the_console_is_quiet(shown, page):
    assert browser.requests(shown) == [page.as_uri()]
    assert shown.get_log("browser") == []
    assert shown.execute_script("return globalThis.intruded") is None


def test_an_external_image_would_be_refused(shown):
    shown.execute_script(
        "document.body.append(Object.assign(new Image(), {src: 'http://x.test/'}))"
    )
    browser.until(
        lambda: any("Content Security" in entry["message"] for entry in shown.get_log("browser"))
    )


def test_every_chart_is_drawn(shown):
    drawn = (
        "return [...document.querySelectorAll('.plot')].map(p => !!p.querySelector('.main-svg'))"
    )
    assert shown.execute_script(drawn) == [True] * toy_report.CHARTS


def test_a_click_sorts_and_a_second_one_turns_it(shown):
    name = head(shown, "Recall@2")
    name.click()
    values = [float(text.split(" ")[0]) for text in texts(shown, 2)]
    assert values == sorted(values)
    assert name.find_element("xpath", "..").get_attribute("aria-sort") == "ascending"
    name.click()
    assert [float(text.split(" ")[0]) for text in texts(shown, 2)] == sorted(values, reverse=True)
    assert name.find_element("xpath", "..").get_attribute("aria-sort") == "descending"


def test_the_keyboard_sorts_and_missing_values_stay_last(shown):
    gain = head(shown, "Gain")
    for order in ("ascending", "descending"):
        gain.send_keys("\ue007")
        assert gain.find_element("xpath", "..").get_attribute("aria-sort") == order
        assert [text == "–" for text in texts(shown, 3)] == [False, True, True, True, True]


def test_filters_hold_for_tables_and_charts(shown):
    choose(shown, "arm", "shuffled")
    assert {text.split(" ")[0] for text in texts(shown, 1)} == {"shuffled"}
    assert "shuffled" in texts(shown, 1, "gains")
    assert "transfer" not in texts(shown, 1, "slices")
    visible = (
        "return document.querySelector('#curves .plot').data.map(t => [t.meta.arm, t.visible])"
    )
    assert {arm for arm, seen in shown.execute_script(visible) if seen} == {"shuffled"}
    choose(shown, "arm", "")
    assert len(texts(shown, 1)) == 5

    shown.find_element("css selector", "details.all summary").click()
    count = len(texts(shown, 3, "gains details"))
    choose(shown, "metric", "MRR@1")
    assert set(texts(shown, 3, "gains details")) == {"MRR@1"}
    said = shown.find_element("css selector", "details.all output").text
    assert said == f"{len(texts(shown, 3, 'gains details'))} of {count} rows"


def test_hovering_a_gain_tells_it(shown):
    title = shown.find_element("css selector", "#gains td.forest title")
    assert title.get_attribute("textContent").startswith("BPR, ")


def test_the_theme_follows_the_system_until_a_button_is_pressed(shown):
    def colours():
        return shown.execute_script(
            "const s = e => getComputedStyle(e); return [s(document.body).backgroundColor,"
            "s(document.querySelector('#curves .xtick text')).fill]"
        )

    def system(value):
        features = [{"name": "prefers-color-scheme", "value": value}]
        shown.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    system("light")
    light = colours()
    system("dark")
    dark = colours()
    assert light[0] == "rgb(255, 255, 255)"
    assert dark[0] == "rgb(20, 24, 30)"
    assert light[1] != dark[1]
    shown.find_element("id", "theme").click()
    assert colours() == light
    assert shown.find_element("id", "theme").text == "Dark theme"
    shown.find_element("id", "theme").click()
    assert colours() == dark
    shown.execute_script("localStorage.clear()")
    system("light")


def test_text_stands_out_in_both_themes(shown):
    for theme in ("light", "dark"):
        found = shown.execute_script(CONTRAST, theme)
        assert {name: ratio for name, ratio in found.items() if ratio < 4.5} == {}
        assert len(found) > 5


def test_a_phone_scrolls_tables_not_the_page(shown):
    size = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    shown.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    width = "return document.documentElement.scrollWidth"
    browser.until(lambda: shown.execute_script("return innerWidth") == 390)
    browser.until(lambda: shown.execute_script(width) == 390)
    shown.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_every_table_has_a_caption_and_headings_do_not_skip(shown):
    assert shown.execute_script(
        "return [...document.querySelectorAll('table')].every(t => t.caption?.textContent.trim())"
    )
    levels = shown.execute_script(
        "return [...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])"
    )
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_on_paper_charts_fit_and_filters_are_gone(shown):
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    heights = (
        "return [...document.querySelectorAll('.plot .main-svg:first-child')]"
        ".map(svg => [svg.getBoundingClientRect(), svg.closest('.plot').getBoundingClientRect()])"
        ".map(([svg, plot]) => svg.height > 50 && svg.right <= plot.right + 1)"
    )
    assert shown.execute_script(heights) == [True] * toy_report.CHARTS
    assert not shown.find_element("css selector", ".filters.page").is_displayed()
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_it_prints(shown):
    printed = shown.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    pdf = base64.b64decode(printed["data"])
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") >= 1


def test_charts_hold_json_that_a_profile_cannot_leave(page):
    html = page.read_text()
    assert "<img src=x" not in html
    start = html.index('<script type="application/json">', html.index('id="curves"'))
    end = html.index("</script>", start)
    assert json.loads(html[start:end].partition(">")[2])["data"]


CONTRAST = """
document.documentElement.dataset.theme = arguments[0];
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const rgb = (colour) => {
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
};
const light = (colour) => rgb(colour)
  .map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const behind = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor;
    if (colour !== "rgba(0, 0, 0, 0)") return colour;
  }
};
const found = {};
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  if (!own || !element.offsetParent || element.closest(".plot")) continue;
  const [a, b] = [light(getComputedStyle(element).color), light(behind(element))];
  const name = `${element.tagName} ${element.className}`;
  found[name] = Math.min(found[name] ?? 99, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
}
delete document.documentElement.dataset.theme;
return found;
"""
