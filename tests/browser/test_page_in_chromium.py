"""The page in a real browser: no errors, no requests; sorting, filters, hover and keys work."""

from __future__ import annotations

import pytest
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from pruning_kit.findings.analysis import analyse
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import singles
from pruning_kit.reporting import formats
from pruning_kit.runs.results import load_run
from tests.browser.browser import requested_addresses, set_screen, start_browser
from tests.synthetic_runs import costs_of, write_run

pytestmark = pytest.mark.slow

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=2>"


def left_by_bridges(plan):
    """Of block 5 next to nothing, of others a third; sets without block 0 have no bridge."""
    kept = Plan(tuple(block for block in plan.removed if block != 5))
    return costs_of(6)(kept) / 3 + 0.01 if plan.size and 0 not in plan.removed else None


@pytest.fixture(scope="module")
def browser():
    chrome = start_browser()
    yield chrome
    chrome.quit()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A 6-block run, one of 4,096 plans, bare and damaged ones, and one with hostile names."""
    base = tmp_path_factory.mktemp("pages")
    few = [Plan(), *singles(6), Plan((1, 3))]
    return {
        "six": write_run(base / "six", 6),
        "twelve": write_run(base / "twelve", 12),
        "untimed": write_run(base / "untimed", 6, few, timed=False, failed=[Plan((0,))]),
        "baseline": write_run(base / "baseline", 6, [Plan()], timed=False),
        "sequential": write_run(base / "sequential", 6, [Plan(), *singles(6)], timed=False),
        "no whole": write_run(
            base / "no-whole", 6, [*few, Plan((1, 2, 3))], failed=[Plan()], timed=False
        ),
        "two texts": write_run(base / "two", 6, selection=True, cost=lambda plan: 0.3 * plan.size),
        "bridged": write_run(base / "bridged", 6, bridged=left_by_bridges, comparing=True),
        "hostile": write_run(
            base / "hostile",
            6,
            few,
            model=HOSTILE,
            changes={"texts.reported.title": HOSTILE},
            samples={Plan(): HOSTILE, Plan((1, 3)): "Once upon a time"},
        ),
    }


@pytest.fixture(scope="module")
def pages(folders):
    return {
        name: formats.write_report(load_run(folder), folder / "report.html")
        for name, folder in folders.items()
    }


@pytest.fixture
def visit(browser, pages):
    """Open a page; afterwards there must be no error and no request but for the page itself."""

    def go(name):
        set_screen(browser, 1200, 900)
        browser.get_log("performance")
        browser.get(pages[name].as_uri())
        return browser

    yield go
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    addresses = requested_addresses(browser)
    assert [a for a in addresses if not a.startswith(("file:", "data:"))] == []
    assert sum(a.startswith("file:") for a in addresses) == 1


def find(browser, selector):
    return browser.find_element(By.CSS_SELECTOR, selector)


def names(browser):
    """The plans of the table, from top to bottom."""
    return browser.execute_script(
        "return [...document.querySelectorAll('#table tbody tr')].map(row => row.dataset.plan)"
    )


def sort_by(browser, key):
    find(browser, f"#table thead button[data-key='{key}']").click()


CHARTED = ["six", "twelve", "untimed", "no whole", "two texts", "bridged", "hostile"]


@pytest.mark.parametrize("name", [*CHARTED, "baseline", "sequential"])
def test_every_page_loads_without_errors_or_requests(visit, name):
    browser = visit(name)
    assert names(browser)
    charts = browser.find_elements(By.CSS_SELECTOR, "#chart svg")
    assert [chart.is_displayed() for chart in charts] == [True] * (name in CHARTED)
    width = browser.execute_script("return document.documentElement.scrollWidth")
    assert width <= 1200
    broken = browser.execute_script(
        "return [...document.images].filter(image => !image.naturalWidth).length"
    )
    assert broken == 0


def test_no_page_is_wider_than_a_phone(visit):
    browser = visit("six")
    set_screen(browser, 390, 800)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390


def test_on_a_phone_pictures_stay_large_and_scroll(visit):
    browser = visit("six")
    set_screen(browser, 390, 800)
    shown, whole = browser.execute_script(
        "const [figure] = document.querySelectorAll('figure');"
        "return [figure.clientWidth, figure.scrollWidth]"
    )
    assert shown <= 390 and whole == 640


def test_a_page_without_a_chart_has_no_place_for_it_and_its_table_works(visit):
    browser = visit("sequential")
    assert browser.find_elements(By.CSS_SELECTOR, "#front, #chart-x") == []
    find(browser, "#table tbody tr[data-plan='3'] td").click()
    assert "3: removes 1 of 6 blocks" in find(browser, "#detail").text


def test_thousands_of_plans_open_with_few_elements_and_a_file_to_mail(visit, pages):
    browser = visit("twelve")
    assert len(names(browser)) == 200
    assert browser.execute_script("return document.querySelectorAll('*').length") < 6000
    assert pages["twelve"].stat().st_size < 2e6
    find(browser, "#all").click()
    assert len(names(browser)) == 4095


def test_bridged_plans_have_both_perplexities_and_the_command_that_bridges(visit):
    browser = visit("bridged")
    headings = [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, "#table th button")]
    assert headings[3:6] == ["As cut", "Bridged [95 %]", "Change [95 %] ▲"]
    assert names(browser)[:2] == ["none", "5"]
    sort_by(browser, "asCut")
    assert names(browser)[:2] == ["none", "3"]
    find(browser, "#table tbody tr[data-plan='5'] td").click()
    detail = find(browser, "#detail").text
    assert " bridged, 91.73 as cut; " in detail and "--remove 5 --bridge --out pruned-5" in detail
    find(browser, "#table tbody tr[data-plan='0'] td").click()
    detail = find(browser, "#detail").text
    assert "bridged" not in detail and "--remove 0 --out pruned-0" in detail


def test_the_table_sorts_by_any_column_both_ways(visit):
    browser = visit("six")
    assert names(browser)[:3] == ["none", "3", "1"]
    assert find(browser, "th[aria-sort]").get_attribute("aria-sort") == "ascending"
    sort_by(browser, "ppl")
    assert Plan.parse(names(browser)[0]).size == 5
    assert names(browser)[-1] == "none"
    assert find(browser, "th[aria-sort]").get_attribute("aria-sort") == "descending"
    sort_by(browser, "parameters")
    assert names(browser)[-1] == "none" and Plan.parse(names(browser)[0]).size == 5
    sort_by(browser, "order")
    assert names(browser)[:4] == ["none", "0", "1", "2"]


def test_failed_plans_stay_below_all_others_whichever_way_it_sorts(visit):
    browser = visit("untimed")
    assert names(browser)[-1] == "0"
    sort_by(browser, "ppl")
    assert names(browser)[-1] == "0"
    assert "failed" in find(browser, "tr[data-plan='0']").text


def test_filters_narrow_the_table_and_come_off_again(visit):
    browser = visit("six")
    box = find(browser, "#filter-text")
    box.send_keys("1 3 !0")
    shown = names(browser)
    assert "1+3" in shown and "1+3+4" in shown and len(shown) == 8
    plans = [set(Plan.parse(name).removed) for name in shown]
    assert all({1, 3} <= plan and 0 not in plan for plan in plans)
    Select(find(browser, "#filter-size")).select_by_value("3")
    assert sorted(names(browser)) == ["1+3+4", "1+3+5", "1-3"]
    assert find(browser, "#table-count").text == "3 of 63 plans"
    box.clear()
    box.send_keys("9")
    assert names(browser) == [] and "No plan fits" in find(browser, "#table-count").text
    find(browser, "#filter-clear").click()
    assert len(names(browser)) == 63
    find(browser, "#filter-front").click()
    assert set(names(browser)) == {"none", "3", "1+3", "1+3+4", "1-4", "1-5"}


def front_point(browser, number):
    return browser.find_elements(By.CSS_SELECTOR, "#chart circle.front")[number]


def test_hover_names_a_plan_and_a_click_shows_its_row(visit):
    browser = visit("twelve")
    ActionChains(browser).move_to_element(front_point(browser, 2)).perform()
    tip = find(browser, ".tip")
    assert tip.is_displayed() and tip.text.splitlines()[0] == "5+10"
    find(browser, "#filter-text").send_keys("0")
    ActionChains(browser).move_to_element(front_point(browser, 2)).click().perform()
    row = find(browser, "#table tr.selected")
    assert row.get_attribute("data-plan") == "5+10" and row.is_displayed()
    assert find(browser, "#filter-text").get_attribute("value") == ""
    detail = find(browser, "#detail").text
    assert "5+10: removes 2 of 12 blocks" in detail and "--remove 5+10" in detail


def test_the_recommended_plan_is_named_as_such(visit):
    browser = visit("six")
    ActionChains(browser).move_to_element(front_point(browser, 1)).perform()
    told = find(browser, ".tip").text.splitlines()
    assert told[0] == "3" and told[-1] == "recommended without a budget"


def test_a_plan_below_the_rows_shown_is_brought_into_view(visit):
    browser = visit("twelve")
    sort_by(browser, "order")
    assert "1-11" not in names(browser)
    first = browser.find_elements(By.CSS_SELECTOR, "#chart circle.front")[-1]
    ActionChains(browser).move_to_element(first).click().perform()
    chosen = find(browser, "#table tr.selected").get_attribute("data-plan")
    assert chosen == "1-11"


def test_the_chart_can_be_read_with_the_keyboard(visit):
    browser = visit("six")
    browser.execute_script("document.querySelector('#chart svg').focus()")
    keys = ActionChains(browser)
    keys.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT).perform()
    assert find(browser, ".tip").text.splitlines()[0] == "1-4"
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    assert find(browser, "#table tr.selected").get_attribute("data-plan") == "1-4"
    assert browser.switch_to.active_element.text == "1-4"


def test_the_front_is_that_of_the_text_chosen_on_and_says_so(visit, folders):
    browser = visit("two texts")
    sizes = analyse(load_run(folders["two texts"])).sizes
    Select(find(browser, "#chart-x")).select_by_value("size")
    browser.execute_script("document.querySelector('#chart svg').focus()")
    told = []
    for _ in range(6):
        ActionChains(browser).send_keys(Keys.ARROW_RIGHT).perform()
        told.append(find(browser, ".tip").text.splitlines()[0])
    assert told == ["whole model", *(size.best.short for size in sizes)]
    assert [size.best for size in sizes] != [size.best_reported for size in sizes]
    assert "The front was chosen on valid" in find(browser, "#chart-legend").text


def test_where_nothing_is_chosen_keys_find_no_front(visit):
    browser = visit("no whole")
    browser.execute_script("document.querySelector('#chart svg').focus()")
    ActionChains(browser).send_keys(Keys.ARROW_RIGHT).perform()
    assert not find(browser, ".tip").is_displayed()
    assert browser.find_elements(By.CSS_SELECTOR, "#chart circle.front") == []


def test_the_axis_can_be_changed_and_the_selection_stays(visit):
    browser = visit("six")
    find(browser, "#table tbody tr[data-plan='1+3'] td").click()
    Select(find(browser, "#chart-x")).select_by_value("size")
    assert len(browser.find_elements(By.CSS_SELECTOR, "#chart circle.picked")) == 1
    assert "Blocks removed" in find(browser, "#chart svg").text


def test_hostile_names_are_shown_and_not_run(visit):
    browser = visit("hostile")
    assert browser.execute_script("return typeof window.hacked") == "undefined"
    assert HOSTILE in find(browser, "h1").text
    assert HOSTILE in find(browser, "#samples blockquote").text
    find(browser, "#table tbody tr[data-plan='1+3'] td").click()
    assert "window.hacked=1" in find(browser, "#detail code").text


def test_dark_and_light_follow_the_reader(visit):
    browser = visit("six")
    colour = "return getComputedStyle(document.body).backgroundColor"
    tint = "return getComputedStyle(document.querySelector('figure img')).filter"
    assert browser.execute_script(colour) == "rgb(255, 255, 255)"
    assert browser.execute_script(tint) == "none"
    set_screen(browser, 1200, 900, "dark")
    assert browser.execute_script(colour) == "rgb(23, 24, 26)"
    assert browser.execute_script(tint) == "invert(1) hue-rotate(180deg)"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert browser.execute_script(tint) == "none"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
