import numpy as np
import pytest

from vladmap.mapping.georegister import Georegistration, Similarity, georegister
from vladmap.mapping.gps import GpsPositions, choose_origin, gps_positions

Array = np.ndarray


def drive(count: int, *, loop: bool) -> tuple[Array, Array]:
    """Centres in ENU and world_from_camera of upright cameras looking along their way."""
    along = np.linspace(0, 1, count)
    if loop:
        centres = 80 * np.column_stack(
            [np.cos(2 * np.pi * along), np.sin(2 * np.pi * along), 0 * along]
        )
        heading = 2 * np.pi * along + np.pi / 2
    else:
        centres = np.column_stack([150 * along, 60 * along, 0 * along])
        heading = np.full(count, np.arctan2(60, 150))
    centres[:, 2] = 2.0
    forward = np.column_stack([np.cos(heading), np.sin(heading), 0 * heading])
    down = np.tile([0.0, 0.0, -1.0], (count, 1))
    right = np.cross(down, forward)
    return centres, np.stack([right, down, forward], axis=2)


def disguised(centres: Array, rotations: Array) -> tuple[Array, Array]:
    """The same cameras in a model's frame: another scale, rotation and origin."""
    rng = np.random.default_rng(9)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    return 0.13 * centres @ turn.T + [5.0, -3.0, 2.0], turn @ rotations


def error_after(centres: Array, rotations: Array, gps: GpsPositions) -> Array:
    georegistration = georegister(*disguised(centres, rotations), gps)
    assert georegistration is not None
    carried = georegistration.enu_from_model.apply(disguised(centres, rotations)[0])
    return np.linalg.norm(carried - centres, axis=1)


def noisy(centres: Array, sigma: float, seed: int = 0) -> GpsPositions:
    noise = np.random.default_rng(seed).normal(0, sigma, centres.shape) * [1.0, 1.0, 1.5]
    return GpsPositions(centres + noise, np.full(len(centres), max(sigma, 0.1)))


@pytest.mark.parametrize("loop", [True, False])
def test_exact_gps_is_met_exactly(loop: bool) -> None:
    centres, rotations = drive(30, loop=loop)
    assert error_after(centres, rotations, noisy(centres, 0.0)).max() < 1e-6


@pytest.mark.parametrize("loop", [True, False])
def test_noise_averages_out(loop: bool) -> None:
    # 3 m and 4.5 m of noise over the root of 120 positions is 0.56 m in three dimensions; turn,
    # tilt and scale add their share.
    centres, rotations = drive(120, loop=loop)
    medians = [
        np.median(error_after(centres, rotations, noisy(centres, 3.0, seed))) for seed in range(20)
    ]
    assert np.median(medians) < 0.85


def test_a_quarter_of_blunders_does_not_move_the_map() -> None:
    centres, rotations = drive(120, loop=True)
    gps = noisy(centres, 3.0)
    gps.enu[::4] += [400.0, -250.0, 90.0]
    georegistration = georegister(*disguised(centres, rotations), gps)
    assert georegistration is not None
    assert np.median(error_after(centres, rotations, gps)) < 1.5
    assert not georegistration.inliers[::4].any()
    assert georegistration.inliers.sum() > 80


def test_a_straight_street_stays_upright() -> None:
    centres, rotations = drive(60, loop=False)
    gps = noisy(centres, 4.0)
    georegistration = georegister(*disguised(centres, rotations), gps)
    assert georegistration is not None
    up = georegistration.enu_from_model.rotation @ disguised(centres, rotations)[1]
    tilt = np.degrees(np.arccos(np.clip(-up[:, 2, 1], -1, 1)))
    assert tilt.max() < 3.0


def test_images_without_position_or_altitude_take_part_as_they_can() -> None:
    centres, rotations = drive(60, loop=True)
    gps = noisy(centres, 1.0)
    gps.enu[::3] = np.nan
    gps.enu[1::3, 2] = np.nan
    georegistration = georegister(*disguised(centres, rotations), gps)
    assert georegistration is not None
    assert np.isnan(georegistration.horizontal[::3]).all()
    assert not georegistration.inliers[::3].any()
    assert np.isfinite(georegistration.horizontal[1::3]).all()
    assert np.isnan(georegistration.spatial[1::3]).all()
    assert np.isfinite(georegistration.spatial[2::3]).all()
    assert error_after(centres, rotations, gps).max() < 2.0


def test_without_any_altitude_the_map_lies_level_at_the_origin() -> None:
    centres, rotations = drive(60, loop=True)
    gps = noisy(centres, 1.0)
    gps.enu[:, 2] = np.nan
    georegistration = georegister(*disguised(centres, rotations), gps)
    assert georegistration is not None
    height = georegistration.enu_from_model.apply(disguised(centres, rotations)[0])[:, 2]
    assert np.abs(height).max() < 1.0


def test_one_position_on_many_images_counts_as_one() -> None:
    centres, rotations = drive(90, loop=True)
    gps = noisy(centres, 2.0)
    gps.enu[:30] = gps.enu[0]
    assert np.median(error_after(centres, rotations, gps)) < 2.0


@pytest.mark.parametrize("places", [0, 2])
def test_fewer_than_three_places_are_refused(places: int) -> None:
    centres, rotations = drive(10, loop=True)
    gps = noisy(centres, 1.0)
    gps.enu[places:] = np.nan
    assert georegister(centres, rotations, gps) is None


def test_one_place_for_all_is_refused() -> None:
    centres, rotations = drive(10, loop=True)
    gps = GpsPositions(np.zeros((10, 3)), np.full(10, 5.0))
    assert georegister(centres, rotations, gps) is None


def test_the_origin_ignores_an_outlier_and_the_antimeridian() -> None:
    latitude = np.array([-17.0, -17.0, -17.0, -17.0, 60.0, np.nan])
    longitude = np.array([179.9999, -179.9999, 179.9998, -179.9998, 10.0, np.nan])
    altitude = np.array([10.0, 12.0, np.nan, 11.0, 900.0, np.nan])
    origin = choose_origin(latitude, longitude, altitude)
    assert origin[0] == pytest.approx(-17.0, abs=0.01)
    assert abs(abs(origin[1]) - 180.0) < 0.01
    assert origin[2] == pytest.approx(12.0, abs=1.0)
    assert choose_origin(*np.full((3, 4), np.nan)) == (0.0, 0.0, 0.0)


def test_positions_take_the_stated_accuracy_or_the_default() -> None:
    row = {"latitude": 1.0, "longitude": 2.0, "altitude": None, "gps_accuracy_m": None}
    rows = [row, {**row, "altitude": 7.0, "gps_accuracy_m": 2.5}, {**row, "latitude": None}]
    gps = gps_positions(rows, (1.0, 2.0, 5.0), 4.0)
    np.testing.assert_allclose(gps.sigma, [4.0, 2.5, 4.0])
    np.testing.assert_allclose(gps.enu[:2, :2], 0.0, atol=1e-6)
    assert gps.enu[1, 2] == pytest.approx(2.0)
    assert np.isnan(gps.enu[0, 2])
    assert np.isnan(gps.enu[2]).all()


def test_residuals_are_named_by_their_dimensions() -> None:
    """Issue 19, 13: horizontal and 3-D residuals by hand, each of the images that have it."""
    unchanged = Similarity(1.0, np.eye(3), np.zeros(3))
    horizontal = np.array([3.0, 5.0, 1.0, np.nan])
    rise = np.array([4.0, 12.0, np.nan, np.nan])
    figures = Georegistration(
        unchanged, horizontal, np.hypot(horizontal, rise), np.array([True, True, True, False])
    ).quality()
    assert (figures["gps_positions"], figures["gps_altitudes"], figures["gps_inliers"]) == (3, 2, 3)
    assert figures["gps_residual_horizontal_median_m"] == 3.0
    assert figures["gps_residual_horizontal_max_m"] == 5.0
    assert figures["gps_residual_3d_median_m"] == 9.0  # of 5 and 13
    assert figures["gps_residual_3d_max_m"] == 13.0
    level = Georegistration(unchanged, horizontal, horizontal * np.nan, np.ones(4, bool)).quality()
    assert not [name for name in level if "3d" in name], "no altitude, no residual in space"


def test_a_georegistration_has_both_residuals() -> None:
    centres, rotations = drive(60, loop=True)
    gps = noisy(centres, 1.0)
    georegistration = georegister(centres, rotations, gps)
    assert georegistration is not None
    offset = georegistration.enu_from_model.apply(centres) - gps.enu
    np.testing.assert_allclose(georegistration.horizontal, np.linalg.norm(offset[:, :2], axis=1))
    np.testing.assert_allclose(georegistration.spatial, np.linalg.norm(offset, axis=1))


def test_the_noise_of_a_receiver_that_stands_is_no_place_for_a_model() -> None:
    """Issue 19, 1: a model of a few steps, by GPS that errs more, would be scaled by chance."""
    rng = np.random.default_rng(4)
    placed = 0
    for seed in range(100):
        steps = rng.normal(0, 0.3, (10, 3))
        rotations = np.tile(np.eye(3)[:, [0, 2, 1]] * [1, -1, 1], (10, 1, 1))
        still = noisy(np.zeros((10, 3)), 3.0, seed)
        gps = GpsPositions(still.enu, np.full(10, 5.0))
        placed += georegister(steps, rotations, gps) is not None
    assert placed <= 15, "each of two tests errs in one of twenty"


@pytest.mark.parametrize("step_m", [2.0, 12.0])
def test_a_short_street_is_placed_by_its_shape_or_by_its_length(step_m: float) -> None:
    """Issue 19, 1: six photographs that GPS follows, though its stated error is larger."""
    centres = np.stack([step_m * np.arange(6.0), 0.3 * np.arange(6.0) ** 2, np.zeros(6)], axis=1)
    rotations = np.tile(np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]]), (6, 1, 1))
    near = noisy(centres, 0.2 if step_m < 10 else 3.0)
    assert georegister(centres / 3, rotations, GpsPositions(near.enu, np.full(6, 5.0))) is not None
