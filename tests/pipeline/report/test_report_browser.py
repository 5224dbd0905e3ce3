"""The report in a real browser, opened from file://: players load, filter and sort agree with the table."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlparse

import pandas as pd
import pytest

from tests.pipeline.report.report_browser import NEEDS_CHROMIUM, Opened
from tests.pipeline.report.report_helpers import HOSTILE_TEXTS, MODALITIES, pairs_table, write_run

pytestmark = NEEDS_CHROMIUM

CARDS_PER_PAGE = 20
NUM_PAIRS = 45
RANKING = {"num_prompts": 60, "attrition": {"no winner in every modality": 15}}


@pytest.fixture(scope="module")
def pairs() -> pd.DataFrame:
    return pairs_table(NUM_PAIRS)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, pairs) -> Path:
    return write_run(tmp_path_factory.mktemp("run #1 50%"), pairs, ranking=RANKING)


def load_players(opened: Opened) -> int:
    """Scroll to every player, wait until their lengths are known; returns how many there are."""
    players = opened.page.locator("video")
    for player in players.all():
        player.scroll_into_view_if_needed()
    opened.page.wait_for_function(
        "() => [...document.querySelectorAll('video')].every((video) => video.readyState >= 1 && video.duration > 0)",
        timeout=20_000,
    )
    return players.count()


def test_every_player_loads_without_errors(open_report, run_dir):
    opened = open_report(run_dir)
    for _ in range(2):
        cards = opened.page.locator(".card").count()
        assert load_players(opened) == 2 * cards > 0
        for source in opened.page.eval_on_selector_all("video", "videos => videos.map(video => video.src)"):
            path = Path(unquote(urlparse(source).path)).resolve()
            assert path.is_file()
            assert path.is_relative_to(run_dir.resolve())
        opened.page.fill("#go-to-page", "3")
        opened.page.keyboard.press("Enter")
    assert opened.problems == []


def test_winner_and_loser_are_marked(open_report, run_dir, pairs):
    opened = open_report(run_dir)
    first = pairs.sort_values("margin", ascending=False).iloc[0]
    card = opened.page.locator(".card").first
    for side, label in (("chosen", "Winner"), ("rejected", "Loser")):
        player = card.locator(f".player.{side}")
        assert label in player.inner_text()
        assert ("ground truth" in player.inner_text()) == first[f"{side}_is_ground_truth"]
        if not first[f"{side}_is_ground_truth"]:
            assert str(first[f"{side}_seed"]) in player.inner_text()
        source = unquote(player.locator("video").get_attribute("data-url"))
        assert source == f"../{first[f'{side}_video_path'].removeprefix('../')}"


def test_only_the_first_cards_are_drawn_and_pages_hold_the_rest(open_report, run_dir, pairs):
    opened = open_report(run_dir)
    assert opened.page.locator(".card").count() == CARDS_PER_PAGE
    assert opened.page.locator("#previous-page").is_disabled()
    assert sorted(opened.shown_ids()) == sorted(pairs["prompt_id"])
    assert opened.page.locator("#page-number").inner_text() == "Page 3 of 3"


def test_filters_keep_what_the_table_keeps(open_report, run_dir, pairs):
    opened = open_report(run_dir)
    page = opened.page

    def expect(kept: pd.Series) -> None:
        count = int(kept.sum())
        assert 0 < count < NUM_PAIRS
        assert page.locator("#count").inner_text() == f"{count} of {NUM_PAIRS} pairs"
        wanted = pairs[kept].sort_values("margin", ascending=False)["prompt_id"].tolist()
        assert opened.page_ids() == wanted[:CARDS_PER_PAGE]
        page.locator("button[type=reset]").click()
        page.wait_for_function(f"() => document.getElementById('count').textContent === '{NUM_PAIRS} pairs'")

    page.fill("#search", "RED  bell")
    expect(pairs["prompt"].str.contains("red"))
    page.fill("#search", pairs["prompt_id"][7])
    expect(pairs["prompt_id"] == pairs["prompt_id"][7])
    for modality in MODALITIES:
        page.fill(f"#min-margin-{modality}", "0.8")
        expect(pairs[f"margin_{modality}"] >= 0.8)
    won, lost = pairs["chosen_is_ground_truth"], pairs["rejected_is_ground_truth"]
    for choice, kept in (("won", won), ("lost", lost), ("not_won", ~won), ("absent", ~won & ~lost)):
        page.select_option("#ground-truth", choice)
        expect(kept)
    page.select_option("#ground-truth", "not_won")
    page.fill("#min-margin-video", "0.5")
    page.fill("#min-margin-audio", "0.5")
    expect(~pairs["chosen_is_ground_truth"] & (pairs["margin_video"] >= 0.5) & (pairs["margin_audio"] >= 0.5))
    page.fill("#search", "no such words")
    assert page.locator("#count").inner_text() == f"0 of {NUM_PAIRS} pairs"
    assert page.locator("#nothing").is_visible()
    assert page.locator(".card").count() == 0


def test_sorting_follows_the_table(open_report, run_dir, pairs):
    opened = open_report(run_dir)
    keys = {"prompt_id": pairs["prompt_id"], "margin": pairs["margin"]}
    keys |= {f"margin_{modality}": pairs[f"margin_{modality}"] for modality in MODALITIES}
    keys["metric:ib_av"] = pairs["chosen_ib_av"] - pairs["rejected_ib_av"]
    keys["metric:desync"] = pairs["rejected_desync"] - pairs["chosen_desync"]  # a lower desync favours the winner
    for order in ("ascending", "descending"):
        opened.page.select_option("#order", order)
        for key, values in keys.items():
            opened.page.select_option("#sort", key)
            wanted = pairs["prompt_id"][values.sort_values(ascending=order == "ascending").index].tolist()
            assert opened.page_ids() == wanted[:CARDS_PER_PAGE], (key, order)
    assert opened.shown_ids() == wanted


def test_pairs_without_a_value_come_last_in_both_orders(open_report, tmp_path):
    pairs = pairs_table(4)
    pairs.loc[1, "chosen_desync"] = None
    opened = open_report(write_run(tmp_path, pairs, clips=False))
    opened.page.select_option("#sort", "metric:desync")
    for order in ("ascending", "descending"):
        opened.page.select_option("#order", order)
        assert opened.shown_ids()[-1] == pairs["prompt_id"][1]
    unscored = opened.page.locator(".card").last.locator('[data-metric="desync"] .bar.chosen')
    assert "n/a" in unscored.inner_text()
    assert not unscored.locator(".bar-fill").is_visible()


def test_a_longer_bar_is_better_also_where_a_lower_number_is(open_report, run_dir, pairs):
    opened = open_report(run_dir)
    row = pairs.sort_values("margin", ascending=False).iloc[0]
    for metric, sign in (("visual_quality", 1), ("desync", -1)):
        bars = opened.page.locator(".card").first.locator(f'[data-metric="{metric}"] .bar')
        widths = [bar.bounding_box()["width"] for bar in bars.locator(".bar-fill").all()]
        lengths = dict(zip(("chosen", "rejected"), widths, strict=True))
        track = bars.first.locator(".bar-track").bounding_box()["width"]
        both = pd.concat([pairs[f"chosen_{metric}"], pairs[f"rejected_{metric}"]])
        worst, best = (both.min(), both.max())[::sign]
        for side, length in lengths.items():
            assert length / track == pytest.approx((row[f"{side}_{metric}"] - worst) / (best - worst), abs=0.02)
        better = "chosen" if sign * (row[f"chosen_{metric}"] - row[f"rejected_{metric}"]) > 0 else "rejected"
        assert lengths[better] == max(lengths.values())
        assert bars.and_(opened.page.locator(".better")).get_attribute("data-side") == better


def test_play_both_runs_in_step_with_one_sound(open_report, run_dir):
    opened = open_report(run_dir)
    first, second = opened.page.locator(".card").nth(0), opened.page.locator(".card").nth(1)
    muted = "card => [...card.querySelectorAll('video')].map(video => video.muted)"
    paused = "card => [...card.querySelectorAll('video')].map(video => video.paused)"
    started = "card => [...card.querySelectorAll('video')].every(v => !v.paused && v.currentTime > 0)"

    first.locator(".play-both").click()
    opened.page.wait_for_function(started, arg=first.element_handle())
    times = first.evaluate("card => [...card.querySelectorAll('video')].map(v => v.currentTime)")
    assert abs(times[0] - times[1]) < 0.5
    assert first.evaluate(muted) == [False, True]
    first.locator(".sound").click()
    assert first.evaluate(muted) == [True, False]

    second.locator(".play-both").click()
    opened.page.wait_for_function(started, arg=second.element_handle())
    assert first.evaluate(paused) == [True, True]
    assert first.evaluate(muted) == [False, False]
    second.locator(".play-both").click()
    assert second.evaluate(paused) == [True, True]
    assert opened.problems == []


def test_play_both_goes_round_again_at_the_end(open_report, run_dir):
    opened = open_report(run_dir)
    card = opened.page.locator(".card").first
    card.locator("video").first.evaluate("v => { window.ends = 0; v.addEventListener('ended', () => window.ends++); }")
    card.locator(".play-both").click()
    opened.page.wait_for_function("() => window.ends >= 2", timeout=15_000)
    assert card.locator(".play-both").inner_text() == "Stop"


def test_keyboard_alone_moves_plays_and_searches(open_report, run_dir):
    opened = open_report(run_dir)
    press = opened.page.keyboard.press
    focused = "() => document.activeElement.closest('.card')?.querySelector('.prompt-id').textContent"
    ids = opened.page_ids()
    press("j")
    press("j")
    assert opened.page.evaluate(focused) == ids[1]
    press("k")
    assert opened.page.evaluate(focused) == ids[0]
    press("p")
    assert opened.page.locator(".card").first.locator(".play-both").inner_text() == "Stop"
    press("/")
    opened.page.keyboard.type("jp")  # letters in a field are text, not commands
    assert opened.page.locator("#search").input_value() == "jp"
    assert opened.page.locator("#count").inner_text() == f"0 of {NUM_PAIRS} pairs"


def test_the_last_card_leads_to_the_next_page(open_report, run_dir):
    opened = open_report(run_dir)
    for _ in range(CARDS_PER_PAGE + 1):
        opened.page.keyboard.press("j")
    assert opened.page.locator("#page-number").inner_text() == "Page 2 of 3"


def test_hostile_text_is_shown_as_text_and_runs_nothing(open_report, tmp_path):
    pairs = pairs_table(len(HOSTILE_TEXTS), first_texts=HOSTILE_TEXTS)
    opened = open_report(write_run(tmp_path, pairs))
    shown = opened.page.eval_on_selector_all(".prompt", "nodes => nodes.map(node => node.textContent)")
    assert sorted(shown) == sorted(HOSTILE_TEXTS)
    assert sorted(opened.page_ids()) == sorted(HOSTILE_TEXTS)
    assert opened.page.locator("img, #injected, iframe, .card script").count() == 0
    assert load_players(opened) == 2 * len(HOSTILE_TEXTS)
    assert opened.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert opened.problems == []


def test_a_lost_clip_is_named_where_it_would_be(open_report, tmp_path):
    pairs = pairs_table(1)
    opened = open_report(write_run(tmp_path, pairs, clips=False))
    message = opened.page.locator(".player.chosen .video-error")
    message.wait_for(state="visible")
    assert Path(pairs["chosen_video_path"][0]).name in message.inner_text()


@pytest.mark.parametrize("num_pairs", [0, 1, 500])
def test_any_number_of_pairs(open_report, tmp_path, num_pairs):
    pairs = pairs_table(max(num_pairs, 1)).iloc[:num_pairs]
    opened = open_report(write_run(tmp_path, pairs, ranking=RANKING, clips=False))
    assert opened.page.locator("#count").inner_text() == ("1 pair" if num_pairs == 1 else f"{num_pairs} pairs")
    assert opened.page.locator(".card").count() == min(num_pairs, CARDS_PER_PAGE)
    assert opened.page.locator("#pager").is_visible() == (num_pairs > CARDS_PER_PAGE)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_narrow_and_wide_windows_in_both_schemes(open_report, run_dir, scheme):
    opened = open_report(run_dir, color_scheme=scheme)
    for keys in ("", "v", "l"):  # cards, gallery, labelling
        for key in keys:
            opened.page.keyboard.press(key)
        for width in (360, 800, 1280):
            opened.page.set_viewport_size({"width": width, "height": 800})
            assert opened.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (keys, width)
    lightness = opened.page.evaluate("() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(lightness) < 80) == (scheme == "dark")
