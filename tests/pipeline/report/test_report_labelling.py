"""Labelling in a real browser: blind, by mouse and keys, with saving, undo, and export to a readable file."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest

from pipeline.exchange.labels import read_labels
from pipeline.report.command import build_report
from rewards.agreement_tables import read_preferences
from tests.pipeline.report.report_browser import NEEDS_CHROMIUM, open_tab
from tests.pipeline.report.report_helpers import HOSTILE_TEXTS, MODALITIES, SIDES, pairs_table, write_run

pytestmark = NEEDS_CHROMIUM

ASKED = (*MODALITIES, "overall")
ANSWERS = ("a", "b", "tie", "b", "a")  # in turn
EXCHANGED = ("candidate_id", "video_path", "audio_path", "is_ground_truth")
COLUMNS = ["pair_id", "modality", "winner", "a", "b", "annotator", "time"]


@pytest.fixture(scope="module")
def pairs() -> pd.DataFrame:
    return pairs_table(len(HOSTILE_TEXTS), first_texts=HOSTILE_TEXTS)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, pairs) -> Path:
    return write_run(tmp_path_factory.mktemp("labels"), pairs, clips=False)


@pytest.fixture
def page(open_report, run_dir):
    """A page in labelling mode that shows the first pair."""
    page = open_report(run_dir).page
    page.locator("#start-labelling").click()
    return page


def candidate_of(page, letter: str, pairs: pd.DataFrame) -> str:
    """Return the candidate that is shown as A or B, from the clip that would be played."""
    path = unquote(page.locator("#label-pair video").nth("AB".index(letter)).get_attribute("data-url"))
    prompt = page.locator("#label-pair .prompt").evaluate("node => node.textContent")
    row = pairs[pairs["prompt"] == prompt].iloc[0]
    return next(row[f"{side}_candidate_id"] for side in ("chosen", "rejected") if row[f"{side}_video_path"] == path)


def answer(page, modality: str, winner: str) -> None:
    page.locator(f'.question[data-modality="{modality}"] button[data-winner="{winner}"]').click()


def count(page) -> str:
    return page.locator("#label-count").inner_text().rpartition("; ")[2]


def export(page, folder: Path) -> Path:
    with page.expect_download() as download:
        page.locator("#export-labels").click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def import_file(page, path: Path) -> str:
    """Import a file and return the page's message."""
    page.evaluate("document.getElementById('label-message').textContent = ''")
    page.set_input_files("#label-file", path)
    page.wait_for_function("() => document.getElementById('label-message').textContent")
    return page.locator("#label-message").inner_text()


def label_everything(page, pairs: pd.DataFrame) -> dict[tuple[str, frozenset], str | None]:
    """Answers every question; returns the preferred candidate, None for a tie, by modality and candidates."""
    clicked: dict[tuple[str, frozenset], str | None] = {}
    answers = itertools.cycle(ANSWERS)
    for number in range(len(pairs)):
        shown = {letter.lower(): candidate_of(page, letter, pairs) for letter in "AB"}
        for modality, winner in zip(ASKED, answers, strict=False):
            clicked[modality, frozenset(shown.values())] = shown.get(winner)
            if number % 2:
                answer(page, modality, winner)
            else:  # the open question is the one that the keys answer
                page.keyboard.press(winner[0])
    return clicked


def test_exported_labels_equal_the_clicks(page, pairs, tmp_path):
    page.fill("#annotator", 'Ann, "the ear"')
    page.locator("#annotator").blur()
    clicked = label_everything(page, pairs)
    assert len(clicked) == len(pairs) * len(ASKED)
    assert count(page) == f"{len(pairs)} of {len(pairs)} labelled"
    assert "All pairs that pass the filters are labelled" in page.locator("#label-message").inner_text()

    path = export(page, tmp_path)
    preferences = read_preferences(path)
    assert [item.respect for item in preferences] == list(ASKED)
    read = {}
    for item in preferences:
        for first, second, sign in zip(item.first, item.second, item.sign, strict=True):
            read[item.respect, frozenset((first, second))] = {1: first, -1: second, 0: None}[sign]
    assert read == clicked
    labels = read_labels(path).rows  # what pipeline.convert reads
    votes = zip(labels["respect"], labels["a"], labels["b"], labels["vote"], strict=True)
    assert {(name, frozenset((a, b))): {1: a, -1: b, 0: None}[vote] for name, a, b, vote in votes} == clicked

    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == COLUMNS
    assert {row["pair_id"] for row in rows} == set(pairs["prompt_id"])
    assert {row["annotator"] for row in rows} == {'Ann, "the ear"'}
    times = pd.to_datetime([row["time"] for row in rows])
    assert (pd.Timestamp.now("UTC") - times).max() < pd.Timedelta(minutes=10)


def test_nothing_on_the_page_reveals_the_winner(page):
    shown = page.locator("#label-pair").evaluate(
        """node => { for (const video of node.querySelectorAll("video")) {
          for (const name of ["src", "data-url", "data-thumbnail", "poster"]) video.removeAttribute(name);
        } return node.outerHTML.toLowerCase(); }"""
    )
    for word in ("winner<", "loser", "chosen", "rejected", "margin", "score", "seed", "ground", "candidate"):
        assert word not in shown
    assert page.locator("#browsing").is_hidden()
    assert page.locator("#items").inner_html() == ""
    assert page.locator("#label-pair .side, #label-pair .bar").count() == 0


def test_sides_are_pseudo_random_and_do_not_change(page, open_report, run_dir, pairs, tmp_path):
    many = open_report(write_run(tmp_path / "many", pairs_table(400), clips=False)).page
    sides = many.evaluate("() => Array.from({ length: 400 }, (_, row) => sidesOf(table, row)[0])")
    assert 0.43 < sides.count("chosen") / len(sides) < 0.57
    changes = sum(one != other for one, other in itertools.pairwise(sides))
    assert 0.43 < changes / len(sides) < 0.57  # and there is no pattern between neighbours

    exchanged = {f"{old}_{name}": f"{new}_{name}" for old, new in (SIDES, SIDES[::-1]) for name in EXCHANGED}
    other = open_report(write_run(tmp_path / "other", pairs.rename(columns=exchanged), clips=False)).page
    other.keyboard.press("l")
    assert candidate_of(other, "A", pairs) == candidate_of(page, "A", pairs)  # independent of the winner


def test_keys_answer_move_and_undo(page, pairs):
    press = page.keyboard.press
    active = "() => document.querySelector('.question[data-active]').dataset.modality"
    pressed = "() => [...document.querySelectorAll('.question [aria-pressed=true]')].map(node => node.dataset.winner)"
    first = candidate_of(page, "A", pairs)
    press("t")
    assert page.evaluate(active) == "audio"
    press("ArrowUp")
    press("t")  # the same answer again removes it
    assert page.evaluate(pressed) == []
    for key in "tabt":
        press(key)
    assert candidate_of(page, "A", pairs) != first  # all answered: the next pair is shown
    assert count(page) == f"1 of {len(pairs)} labelled"
    press("ArrowLeft")
    assert candidate_of(page, "A", pairs) == first
    assert page.evaluate(pressed) == ["tie", "a", "b", "tie"]
    press("ArrowDown")
    press("b")  # a change of mind stays on the pair
    assert page.evaluate(pressed) == ["b", "a", "b", "tie"] or page.evaluate(pressed) == ["tie", "b", "b", "tie"]
    press("n")
    assert candidate_of(page, "A", pairs) != first
    press("Escape")
    assert page.locator("#browsing").is_visible()
    assert page.locator(".card").count() == len(pairs)


def test_labels_and_undo_survive_a_reload(page, pairs):
    for key in "tttt" + "a":
        page.keyboard.press(key)
    page.reload()
    page.keyboard.press("l")
    assert count(page) == f"1 of {len(pairs)} labelled"
    second = candidate_of(page, "A", pairs)
    assert page.locator(".question [aria-pressed=true]").count() == 1  # continues where it stopped
    page.keyboard.press("u")
    assert page.locator(".question [aria-pressed=true]").count() == 0
    page.locator("#undo").click()
    assert candidate_of(page, "A", pairs) != second  # back to the pair it undoes
    assert page.locator(".question [aria-pressed=true]").count() == 3
    for _ in range(3):
        page.keyboard.press("u")
    page.keyboard.press("u")
    assert "nothing to undo" in page.locator("#label-message").inner_text()
    assert count(page) == f"0 of {len(pairs)} labelled"


def test_an_exported_file_can_be_continued_in_another_browser(page, open_report, run_dir, tmp_path):
    page.fill("#annotator", "Ann")
    page.locator("#annotator").blur()
    for key in "atbt" + "bb":
        page.keyboard.press(key)
    path = export(page, tmp_path)
    swapped = pd.read_csv(path, dtype=str)
    swapped[["a", "b"]] = swapped[["b", "a"]]  # a file may name the two the other way round
    swapped["winner"] = swapped["winner"].map({"a": "b", "b": "a", "tie": "tie"})
    foreign = {"pair_id": "x", "modality": "video", "winner": "a", "a": "x/1", "b": "x/0", "annotator": "Ann"}
    pd.concat([swapped, pd.DataFrame([foreign])]).to_csv(tmp_path / "swapped.csv", index=False)

    other = open_report(run_dir).page
    other.keyboard.press("l")
    said = import_file(other, tmp_path / "swapped.csv")
    assert "Labels imported: 6. Ignored, because this page does not have their pairs: 1." in said
    assert other.locator("#annotator").input_value() == "Ann"
    assert count(other).startswith("1 of")
    assert export(other, tmp_path / "again").read_bytes() == path.read_bytes()


def test_a_later_answer_is_not_overwritten_by_an_earlier_file(page, tmp_path):
    page.keyboard.press("a")
    old = pd.read_csv(export(page, tmp_path), dtype=str).assign(winner="b", time="2020-01-01T00:00:00Z")
    old.to_csv(tmp_path / "old.csv", index=False)
    import_file(page, tmp_path / "old.csv")
    assert pd.read_csv(export(page, tmp_path))["winner"].tolist() == ["a"]


def test_a_file_that_holds_no_labels_says_why(page, tmp_path):
    for text, said in (
        ("pair_id,winner\nx,a\n", "no column a, b"),
        ("a,b,winner,modality\nx/1,x/0,c,video\n", 'Row 1: the winner is "c", but must be a, b or tie'),
        ("a,b,winner,modality\nx/1,x/0,a,smell\n", 'Row 1: the modality is "smell", but must be one of video'),
        ('a,b,winner\n"x/1,x/0,a\n', "row 2 has a misplaced quote"),
        ("a,b,winner,annotator\nx/1,x/0,a,Bob\nx/1,x/0,a,Eve\n", "by other annotators (Bob, Eve): 2."),
    ):
        (tmp_path / "labels.csv").write_text(text)
        assert said in import_file(page, tmp_path / "labels.csv")
        assert count(page).startswith("0 of")


def test_only_requested_modalities_count(page, pairs, tmp_path):
    for name in ("video", "audio", "audio_video"):
        page.locator(f"#ask-{name}").uncheck()
    assert page.locator(".question").count() == 1
    page.keyboard.press("b")
    page.keyboard.press("t")
    assert count(page) == f"2 of {len(pairs)} labelled"
    assert [item.respect for item in read_preferences(export(page, tmp_path))] == ["overall"]


def test_every_name_has_labels_of_its_own(page):
    name = page.locator("#annotator")

    def call_me(text: str) -> None:
        name.fill(text)
        name.blur()

    page.keyboard.press("a")
    call_me("Ann")
    assert page.locator(".question [aria-pressed=true]").count() == 1  # the label was given before the name was entered
    call_me("Bob")
    assert page.locator(".question [aria-pressed=true]").count() == 0
    call_me("Ann")
    assert page.locator(".question [aria-pressed=true]").count() == 1


def test_filters_choose_the_pairs_and_labels_can_be_looked_at(page, pairs):
    page.keyboard.press("Escape")
    wanted = pairs["chosen_is_ground_truth"]
    page.select_option("#ground-truth", "won")
    page.keyboard.press("Escape")  # out of the field
    page.keyboard.press("l")
    assert count(page) == f"0 of {wanted.sum()} labelled"
    against = []
    for _ in range(2):
        prefers_loser = candidate_of(page, "A", pairs) in set(pairs["rejected_candidate_id"])
        against.append(prefers_loser)
        for key in "tata":
            page.keyboard.press(key)
    page.locator("#leave-labelling").click()
    page.locator("button[type=reset]").click()
    page.select_option("#labelled", "labelled")
    assert page.locator("#count").inner_text() == f"2 of {len(pairs)} pairs"
    labels = page.locator(".card .labels").all_inner_texts()
    assert [text.split(",")[0] for text in labels] == ["Labelled: video tie"] * 2
    assert all(", audio " in text for text in labels)
    page.select_option("#labelled", "against")
    assert page.locator("#count").inner_text() == f"{sum(against)} of {len(pairs)} pairs"


def test_pairs_that_mix_candidates_are_left_out(open_report, tmp_path):
    pairs = pairs_table(3)
    pairs.loc[1, "rejected_candidate_id"] = "{0}/1+{0}/0".format(pairs["prompt_id"][1])
    page = open_report(write_run(tmp_path, pairs, clips=False)).page
    page.keyboard.press("l")
    assert count(page) == "0 of 2 labelled"
    assert "of different candidates: 1." in page.locator("#label-message").inner_text()


def test_both_clips_play_in_step_with_one_sound(open_report, tmp_path):
    opened = open_report(write_run(tmp_path, pairs_table(2)))
    page = opened.page
    page.keyboard.press("l")
    page.keyboard.press("p")
    page.wait_for_function("() => [...document.querySelectorAll('#label-pair video')].every(v => v.currentTime > 0)")
    muted = "() => [...document.querySelectorAll('#label-pair video')].map(video => video.muted)"
    assert page.evaluate(muted) == [False, True]
    page.keyboard.press("s")
    assert page.evaluate(muted) == [True, False]
    assert page.locator("#label-pair .sound").inner_text() == "Sound: B"
    assert opened.problems == []


def test_several_pairs_of_one_prompt_are_labelled_apart(open_report, tmp_path):
    pairs = pairs_table(3)
    pairs["prompt_id"] = "same"
    for number, sides in enumerate((("2", "0"), ("2", "1"), ("0", "1"))):
        for side, index in zip(SIDES, sides, strict=True):
            pairs.loc[number, f"{side}_candidate_id"] = f"same/{index}"
    pairs["pair_id"] = pairs["chosen_candidate_id"] + ">" + pairs["rejected_candidate_id"]  # as pipeline.rank does
    page = open_report(write_run(tmp_path, pairs, clips=False)).page
    page.keyboard.press("l")
    for key in "tttt":
        page.keyboard.press(key)
    assert count(page) == "1 of 3 labelled"
    assert set(pd.read_csv(export(page, tmp_path))["pair_id"]) < set(pairs["pair_id"])


def test_a_full_storage_is_reported_and_labels_can_still_be_exported(page, tmp_path):
    page.evaluate("() => { Storage.prototype.setItem = () => { throw new DOMException('full'); }; }")
    page.keyboard.press("a")
    assert "could not be saved in this browser" in page.locator("#label-message").inner_text()
    assert len(pd.read_csv(export(page, tmp_path))) == 1


def test_two_runs_keep_their_labels_apart(open_report, run_dir, tmp_path):
    opened = open_report(run_dir)
    opened.page.keyboard.press("l")
    opened.page.keyboard.press("a")
    other = write_run(tmp_path, pairs_table(4), clips=False)
    page = open_tab(opened.page.context, build_report(other)).page
    page.keyboard.press("l")
    assert page.locator(".question [aria-pressed=true]").count() == 0
    page.close()
