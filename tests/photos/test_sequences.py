from datetime import UTC, datetime, timedelta

import numpy as np

from vladmap.photos.sequences import (
    assign_sequences,
    beside_in_sequence,
    natural_key,
    sequence_group,
)

START = datetime(2024, 5, 1, 8, 0, 0, tzinfo=UTC)


def assign(
    paths, *, seconds=None, lat=None, lon=None, make=None, model=None, given=None, **options
):
    n = len(paths)
    times = [None] * n if seconds is None else [
        None if s is None else START + timedelta(seconds=s) for s in seconds
    ]  # fmt: skip
    return assign_sequences(
        [f"id:{path}" for path in paths],
        paths,
        times,
        [None] * n if lat is None else lat,
        [None] * n if lon is None else lon,
        make or [None] * n,
        model or [None] * n,
        given or [None] * n,
        **options,
    )


def as_paths(paths, result):
    """The sequences as lists of paths in order."""
    ids, index = result
    found: dict[str, dict[int, str]] = {}
    for path, sequence, place in zip(paths, ids, index.tolist(), strict=True):
        assert place not in found.setdefault(sequence, {})
        found[sequence][place] = path
    return sorted([places[i] for i in range(len(places))] for places in found.values())


def test_without_times_the_folder_in_natural_order_is_one_sequence():
    paths = ["s/10.jpg", "s/9.jpg", "s/1.jpg"]
    assert as_paths(paths, assign(paths)) == [["s/1.jpg", "s/9.jpg", "s/10.jpg"]]


def test_times_order_and_time_gaps_break():
    paths = ["c.jpg", "b.jpg", "a.jpg", "d.jpg"]
    result = assign(paths, seconds=[0, 30, 90, 151])
    assert as_paths(paths, result) == [["c.jpg", "b.jpg", "a.jpg"], ["d.jpg"]]


def test_a_gap_of_exactly_the_limit_does_not_break():
    paths = ["a.jpg", "b.jpg", "c.jpg"]
    assert len(as_paths(paths, assign(paths, seconds=[0, 60, 120.001]))) == 2


def test_distance_gaps_break_also_without_times_and_across_the_antimeridian_do_not():
    paths = [f"{i}.jpg" for i in range(4)]
    # 0.001 degrees of latitude are 111 m.
    assert len(as_paths(paths, assign(paths, lat=[0.001, 0.002, 0.02, 0.021], lon=[1.0] * 4))) == 2
    lon = [179.999, 180.0, -180.0, -179.999]
    assert len(as_paths(paths, assign(paths, lat=[0.5] * 4, lon=lon))) == 1


def test_an_image_without_position_or_time_hides_no_gap():
    paths = [f"{i}.jpg" for i in range(3)]
    assert as_paths(paths, assign(paths, lat=[0.001, None, 0.1], lon=[1.0, None, 1.0])) == [
        ["0.jpg", "1.jpg"],
        ["2.jpg"],
    ]
    assert as_paths(paths, assign(paths, seconds=[0, None, 1_000])) == [
        ["0.jpg", "1.jpg"],
        ["2.jpg"],
    ]


def test_folders_and_cameras_are_apart():
    paths = ["a/1.jpg", "b/2.jpg", "b/3.jpg", "b/4.jpg"]
    result = assign(paths, model=[None, "left", "right", "left"])
    assert as_paths(paths, result) == [["a/1.jpg"], ["b/2.jpg", "b/4.jpg"], ["b/3.jpg"]]


def test_given_ids_win_over_folders_cameras_and_gaps():
    paths = ["a/1.jpg", "b/2.jpg", "b/3.jpg"]
    ids, index = assign(
        paths, seconds=[1_000, 0, 10], given=["drive", "drive", None], model=["x", "y", "y"]
    )
    assert ids[:2] == ["drive", "drive"]
    assert ids[2] != "drive"
    assert index.tolist() == [1, 0, 0]
    assert index.dtype == np.int32


def test_equal_times_fall_back_on_the_natural_order_of_names():
    paths = ["10.jpg", "9.jpg", "8.jpg"]
    assert as_paths(paths, assign(paths, seconds=[5, 5, 5])) == [["8.jpg", "9.jpg", "10.jpg"]]


def test_images_added_behind_leave_the_ids_as_they_are():
    few = [f"s/{i}.jpg" for i in range(5)]
    more = [*few, "s/5.jpg", "other/1.jpg"]
    assert assign(more)[0][:5] == assign(few)[0]


def test_the_order_of_the_input_and_the_partition_by_group_make_no_difference():
    generator = np.random.default_rng(0)
    n = 200
    paths = [f"{generator.choice(list('ab'))}/{i}.jpg" for i in range(n)]
    seconds = generator.integers(0, 4_000, n).tolist()
    lat, lon = generator.uniform(55.0, 55.02, n), generator.uniform(13.0, 13.02, n)
    model = generator.choice(["x", "y"], n).tolist()
    given = generator.choice(["", "", "g"], n).tolist()

    def run(rows):
        return assign(
            [paths[i] for i in rows], seconds=[seconds[i] for i in rows], lat=lat[rows],
            lon=lon[rows], model=[model[i] for i in rows], given=[given[i] for i in rows],
        )  # fmt: skip

    whole = run(np.arange(n))
    shuffled = generator.permutation(n)
    ids, index = run(shuffled)
    assert [whole[0][i] for i in shuffled] == ids
    assert (whole[1][shuffled] == index).all()
    groups = [sequence_group(paths[i], None, model[i], given[i]) for i in range(n)]
    for group in set(groups):
        rows = np.flatnonzero(np.array(groups, dtype=object) == group)
        ids, index = run(rows)
        assert [whole[0][i] for i in rows] == ids
        assert (whole[1][rows] == index).all()


def test_datetime64_columns_and_no_images_at_all():
    paths = ["a.jpg", "b.jpg"]
    times = np.array(["2024-05-01T08:00:00", "NaT"], "datetime64[us]")
    nothing = [None, None]
    ids, index = assign_sequences(
        ["1", "2"], paths, times, nothing, nothing, nothing, nothing, nothing
    )
    assert ids[0] == ids[1]
    assert index.tolist() == [0, 1]
    assert assign_sequences([], [], [], [], [], [], [], [])[0] == []


def test_natural_key():
    names = ["IMG10.jpg", "img2.jpg", "IMG1.jpg", "IMG02b.jpg"]
    assert sorted(names, key=natural_key) == ["IMG1.jpg", "img2.jpg", "IMG02b.jpg", "IMG10.jpg"]


def beside(names, seconds, index, reach=10.0):
    times = [None if s is None else START + timedelta(seconds=s) for s in seconds]
    return [rows.tolist() for rows in beside_in_sequence(names, index, times, reach)]


def test_images_of_one_sequence_within_the_reach_in_time_are_beside_each_other():
    """The last is beside none: its time is near, its sequence another."""
    found = beside(["a", "a", "a", "b"], [10.0, 0.0, 10.5, 5.0], [1, 0, 2, 0])
    assert found == [[0, 1, 2], [0, 1], [0, 2], [3]]


def test_a_sequence_with_a_time_missing_goes_by_its_places():
    found = beside(["a"] * 4, [0.0, None, 2.0, 3.0], [0, 1, 2, 5], reach=2.0)
    assert found == [[0, 1, 2], [0, 1, 2], [0, 1, 2], [3]]


def test_an_image_without_a_sequence_or_a_place_in_it_has_itself_alone():
    assert beside([None, None, "a", "a"], [0.0, 0.0, None, None], [0, 1, None, 1]) == [
        [0],
        [1],
        [2],
        [3],
    ]
    assert beside([], [], []) == []
