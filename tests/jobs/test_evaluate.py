from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.drives import write_drive
from tests.jobs.places import PLACES, write_places
from tests.photos.bad_photos import encode, texture
from vladmap.jobs.main import main

pytestmark = pytest.mark.medium

PHOTOS = Path(
    os.environ.get("VLADMAP_PHOTOS", Path(__file__).parents[2].parent / "shared" / "photos")
)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("places")
    write_places(root)
    return root


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two drives along one wall: the second begins at 12:00:20 where the first began."""
    root = tmp_path_factory.mktemp("drives")
    write_drive(root / "photos", 8)
    write_drive(root / "later", 8)
    for number in range(8):
        data = (root / "later" / f"{number:04d}.jpg").read_bytes()
        later = data.replace(b"12:00:0", b"12:00:2")
        (root / "photos" / f"later-{number}.jpg").write_bytes(later)
    out = root / "atlas"
    assert main(["ingest", "--images", str(root / "photos"), "--atlas", str(out)]) == 0
    return out


def results(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return content


def query_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "queries.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_set_across_a_zone_boundary_is_measured_whole(
    places: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["evaluate", str(places), "--model", "gem", "--output", str(out)]) == 0
    measured = results(out)
    assert measured["counts"] == {
        "database": PLACES,
        "database_unreadable": 0,
        "queries": PLACES,
        "queries_unreadable": 0,
        "queries_with_positive": PLACES,
        "queries_without_positive": 0,
    }
    assert measured["all"]["recall_over_all_queries"]["1"] == 1.0
    assert measured["all"]["mean_average_precision"] == 1.0
    assert {name: row["queries"] for name, row in measured["conditions"].items()} == {
        "day": 3,
        "night": 3,
    }
    assert measured["set"]["protocol"] == "within 25 m"
    assert measured["model"]["fingerprint"]
    rows = query_rows(out)
    assert [row["positives"] for row in rows] == ["1"] * PLACES
    assert [row["right"] for row in rows] == ["true"] * PLACES
    assert all(float(row["distance_m"]) == pytest.approx(11.15, abs=0.05) for row in rows)
    output = capsys.readouterr().out
    assert "6 queries in 6 photographs, right within 25 m" in output
    assert output.count("with a positive") == 3  # all, day, night


def test_the_recall_is_that_of_a_hand_count_and_failures_are_shown(tmp_path: Path) -> None:
    """Frames 0, 1, 2: the last query shows the first place, so two of three are found."""
    for part, seeds in (("database", (0, 1, 2)), ("queries", (0, 1, 0))):
        (tmp_path / part).mkdir()
        for frame, seed in enumerate(seeds):
            (tmp_path / part / f"{frame}.jpg").write_bytes(encode(texture(seed)))
    out = tmp_path / "out"
    assert main(["evaluate", str(tmp_path), "--model", "gem", "--output", str(out)]) == 0
    measured = results(out)
    assert measured["all"]["recall_over_all_queries"]["1"] == pytest.approx(2 / 3, abs=1e-6)
    assert measured["all"]["recall_over_all_queries"]["5"] == 1.0
    assert [row["right"] for row in query_rows(out)] == ["true", "true", "false"]
    page = (out / "failures.html").read_text()
    assert page.count('<li class="triple">') == 1
    pictures = sorted(path.name for path in (out / "thumbnails").iterdir())
    # The query and its wrong match are the same picture: one file.
    assert len(pictures) == 2
    assert all(f'src="thumbnails/{name}"' in page for name in pictures)
    assert Image.open(out / "thumbnails" / pictures[0]).size == (192, 144)
    assert "http" not in page.replace("http-equiv", "")


def test_both_denominators_and_what_cannot_be_read_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four queries: right, far from all, corrupt, and one whose only positive is corrupt."""
    rows = ["path,latitude,longitude,side,condition"]
    for number, latitude in enumerate((48.0, 48.01, 48.02)):
        rows.append(f"d{number}.jpg,{latitude},16,database,")
        rows.append(f"q{number}.jpg,{latitude},16,query,snow")
    rows.append("q3.jpg,50,16,query,")
    (tmp_path / "set.csv").write_text("\n".join(rows))
    for number in (0, 1, 2, 3):
        data = encode(texture(number))
        (tmp_path / f"d{number}.jpg").write_bytes(b"" if number == 2 else data)
        (tmp_path / f"q{number}.jpg").write_bytes(data[:300] if number == 1 else data)
    out = tmp_path / "out"
    command = ["evaluate", str(tmp_path / "set.csv"), "--model", "gem", "--output", str(out)]
    assert main(command) == 0
    measured = results(out)
    assert measured["counts"]["queries"] == 4
    assert measured["counts"]["queries_with_positive"] == 3
    assert measured["counts"]["queries_unreadable"] == 1
    assert measured["counts"]["database_unreadable"] == 1
    assert measured["all"]["recall_over_all_queries"]["100"] == 0.25
    assert measured["all"]["recall_over_queries_with_positive"]["100"] == pytest.approx(
        1 / 3, abs=1e-6
    )
    assert set(measured["conditions"]) == {"snow", "unknown"}
    by_name = {row["query"]: row for row in query_rows(out)}
    assert by_name["q1.jpg"]["best_match"] == ""
    assert by_name["q1.jpg"]["note"]
    assert by_name["q3.jpg"]["positives"] == "0"
    output = capsys.readouterr().out
    assert "queries without a right photograph in the database: 1," in output
    assert "queries that cannot be read and count as misses: 1 (q1.jpg: " in output
    assert "cannot be read, and so not be found: 1 (d2.jpg: empty_file" in output


def test_the_same_set_gives_the_same_bytes(places: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert main(["evaluate", str(places), "--output", str(tmp_path / name)]) == 0
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    assert {path.as_posix() for path in files} >= {
        "results.json",
        "queries.csv",
        "precision_recall.csv",
        "recall.svg",
        "recall.png",
        "precision_recall.svg",
        "index.html",
        "failures.html",
    }
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


def test_the_database_is_smoothed_as_far_as_the_set_says_or_the_option(tmp_path: Path) -> None:
    """Queries are copies of the database: their distance is 0 unless what is searched was mixed."""
    for part in ("database", "queries"):
        (tmp_path / part).mkdir()
        for frame in range(4):
            (tmp_path / part / f"{frame}.jpg").write_bytes(encode(texture(frame)))
    command = ["evaluate", str(tmp_path), "--model", "gem", "--output", str(tmp_path / "out")]
    for words, sigma, mixed in (
        ([], 0.0, False),  # the same frame alone is right
        (["--frames-tolerance", "2"], 3.0, True),
        (["--frames-tolerance", "2", "--smooth", "0"], 0.0, False),
        (["--smooth", "1"], 1.0, True),
        # Candidates that features put in order are those of the descriptors themselves.
        (["--frames-tolerance", "2", "--rerank", "sift"], 3.0, False),
    ):
        assert main([*command, *words]) == 0
        assert results(tmp_path / "out")["smoothing"] == {"sigma": sigma, "unit": "frames"}
        apart = [float(row["descriptor_distance"]) for row in query_rows(tmp_path / "out")]
        assert (min(apart) > 1e-3) if mixed else (max(apart) < 1e-3)


def test_positions_and_headings_say_whose_descriptors_are_mixed(tmp_path: Path) -> None:
    """Metres from 0: 0 and 3 look north, 4 looks south, 500 is alone."""
    rows = ["path,latitude,longitude,heading,side"]
    for number, (metres, heading) in enumerate(((0, 0), (3, 10), (4, 180), (500, 0))):
        (tmp_path / f"{number}.jpg").write_bytes(encode(texture(number)))
        place = f"{48.2 + metres / 111_200:.7f},16.37,{heading}"
        rows += [f"{number}.jpg,{place},{side}" for side in ("database", "query")]
    (tmp_path / "set.csv").write_text("\n".join(rows))
    out = tmp_path / "out"
    command = ["evaluate", str(tmp_path / "set.csv"), "--model", "gem", "--output", str(out)]
    assert main(command) == 0
    assert results(out)["smoothing"] == {"sigma": 6.0, "unit": "m"}
    mixed = [float(row["descriptor_distance"]) > 1e-3 for row in query_rows(out)]
    assert mixed == [True, True, False, False]
    assert main([*command, "--positives-m", "8"]) == 0
    assert results(out)["smoothing"]["sigma"] == 2.0  # never further than half of what is right


def test_queries_that_are_the_database_are_not_mixed_into_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["path,latitude,longitude"]
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(encode(texture(number)))
        rows.append(f"{number}.jpg,{48.2 + number * 1e-5},16.37")
    (tmp_path / "set.csv").write_text("\n".join(rows))
    command = ["evaluate", str(tmp_path / "set.csv"), "--model", "gem"]
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    assert results(tmp_path / "out")["smoothing"]["sigma"] == 0.0
    assert main([*command, "--smooth", "6"]) == 2
    assert "queries apart from the database" in capsys.readouterr().err


def test_an_atlas_is_split_by_time(atlas: Path, tmp_path: Path) -> None:
    command = ["evaluate", str(atlas), "--model", "gem", "--positives-m", "1"]
    assert main([*command, "--since", "2024-05-01T12:00:20", "--output", str(tmp_path)]) == 0
    measured = results(tmp_path)
    assert (measured["set"]["layout"], measured["set"]["split"]) == ("atlas", None)
    assert (measured["counts"]["database"], measured["counts"]["queries"]) == (8, 8)
    # The same pixels at the same place, with another time in the file.
    assert measured["all"]["recall_over_all_queries"]["1"] == 1.0


def test_whitening_index_and_re_ranking_are_told(tmp_path: Path) -> None:
    write_places(tmp_path / "set")
    for part in ("database", "queries"):
        folder = tmp_path / "set/images/val" / part
        folder.mkdir(parents=True)
        for number in range(20):
            (folder / f"@{700000 + 100 * number}@5342881@32@U@@@{number}@@@@@@@@.jpg").write_bytes(
                encode(texture(100 + number, 96, 72))
            )
    out = tmp_path / "out"
    command = ["evaluate", str(tmp_path / "set"), "--model", "gem", "--output", str(out)]
    command += ["--whiten", "2", "--whiten-split", "val", "--index", "Flat"]
    assert main([*command, "--rerank", "sift", "--rerank-candidates", "3"]) == 0
    measured = results(out)
    assert measured["dimension"] == 2
    assert measured["whitening"]["split"] == "val"
    assert measured["search"] == "Flat"
    assert measured["rerank"] == {
        "method": "sift",
        "candidates": 3,
        "patch_size": None,
        "features": "sift",
        "matcher": "nearest",
    }


def test_patches_put_the_right_place_first(places: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["evaluate", str(places), "--rerank", "rapid", "--patch-dimension", "8"]
    assert main([*command, "--output", str(out)]) == 0
    measured = results(out)
    assert measured["rerank"]["patch_size"] == 5
    assert measured["all"]["recall_over_all_queries"]["1"] == 1.0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere"], "does not exist"),
        (["{set}", "--split", "val"], "splits of {set}: test"),
        (["{set}", "--model", "netvlad"], "needs a checkpoint"),
        (["{set}", "--model", "gem", "--checkpoint", "no.pth"], "checkpoint no.pth: No such file"),
        (["{set}", "--model", "gem", "--learn"], "nothing to learn for gem"),
        (["{set}", "--model", "gem", "--rerank", "rapid"], "no patches"),
        (["{set}", "--model", "gem", "--whiten", "16"], "needs at least 160 images"),
        (["{set}", "--layout", "atlas"], "not an atlas"),
        (["{atlas}", "--since", "now"], "not a time"),
    ],
)
def test_what_the_user_can_mend_is_one_clear_line(
    words: list[str], says: str, places: Path, atlas: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = {"set": places, "atlas": atlas}
    assert main(["evaluate", *(word.format_map(named) for word in words)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("vladmap: ")
    assert says.format_map(named) in error


@pytest.mark.slow
def test_an_untrained_model_finds_real_frames(tmp_path: Path) -> None:
    folder = PHOTOS / "gardens-point"
    if not folder.is_dir():
        pytest.skip(f"no photographs in {folder}; set VLADMAP_PHOTOS")
    command = ["evaluate", str(folder), "--frames-tolerance", "2", "--learn"]
    assert main([*command, "--model", "netvlad-lite", "--output", str(tmp_path)]) == 0
    measured = results(tmp_path)
    assert measured["set"]["protocol"] == "within 2 frames"
    assert measured["counts"]["queries"] == 200
    assert measured["all"]["recall_over_all_queries"]["1"] > 0.96  # 0.92 without smoothing


def test_a_drive_is_matched_as_one_and_what_stands_against_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Query 6 shows the place of frame 1: alone it is found there, in its drive where it is."""
    for part, seeds in (("database", range(12)), ("queries", [*range(6), 1, *range(7, 12)])):
        (tmp_path / part).mkdir()
        for frame, seed in enumerate(seeds):
            (tmp_path / part / f"{frame}.jpg").write_bytes(encode(texture(seed)))
    command = ["evaluate", str(tmp_path), "--model", "thumbnail"]
    out = tmp_path / "out"
    assert main([*command, "--output", str(out)]) == 0
    assert results(out)["all"]["recall_over_all_queries"]["1"] == pytest.approx(11 / 12, abs=1e-6)
    assert main([*command, "--sequence", "hmm=2", "--output", str(out)]) == 0
    measured = results(out)
    assert measured["all"]["recall_over_all_queries"]["1"] == 1.0
    assert measured["sequence"] == {"method": "hmm=2", "queries_nowhere": 0}
    assert measured["recall_at_1_interval"]["of"] == "stretches of 20 photographs"
    assert "drives matched by hmm=2" in capsys.readouterr().out
    assert main([*command, "--sequence", "hmm", "--rerank", "features"]) == 2
    assert "leave out --rerank" in capsys.readouterr().err
    assert main([*command, "--sequence", "slam"]) == 2
    assert "'slam' is none of" in capsys.readouterr().err
