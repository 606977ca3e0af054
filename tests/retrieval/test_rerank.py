from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vladmap.retrieval.rerank import (
    by_inliers,
    contextual_weights,
    exact_products,
    fuse,
    raw_scores,
    rerank,
)
from vladmap.retrieval.stored_patches import (
    Patches,
    StoredPatches,
    bytes_an_image,
    quantise,
    stored,
)

WIDTH, HEIGHT, STRIDE = 9, 7, 16


def centres(size: int) -> NDArray[np.float32]:
    across, down = WIDTH - size + 1, HEIGHT - size + 1
    x, y = np.meshgrid(np.arange(across), np.arange(down))
    return (STRIDE * np.stack([x.ravel(), y.ravel()], 1) + STRIDE * size / 2 - 0.5).astype(
        np.float32
    )


def unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def seeded(count: int, sizes: tuple[int, ...] = (2, 5), seed: int = 0, d: int = 16) -> Patches:
    """Images alike enough that many patches are mutual neighbours."""
    generator = np.random.default_rng(seed)
    descriptors = []
    for size in sizes:
        scene = np.random.default_rng(size).normal(size=(len(centres(size)), d))
        noise = generator.normal(size=(count, *scene.shape))
        descriptors.append(unit(scene + noise * np.linspace(0.3, 1.5, count)[:, None, None]))
    return Patches(descriptors, [centres(size) for size in sizes])


def mutual_by_loops(q: NDArray[np.float64], c: NDArray[np.float64]) -> list[tuple[int, int]]:
    """(candidate's patch, query's patch) that are each other's nearest."""
    mutual = []
    for j in range(len(c)):
        i = min(range(len(q)), key=lambda i: float(((q[i] - c[j]) ** 2).sum()))
        if min(range(len(c)), key=lambda k: float(((q[i] - c[k]) ** 2).sum())) == j:
            mutual.append((j, i))
    return mutual


def rapid_by_loops(
    q: NDArray[np.float64], c: NDArray[np.float64], cells: list[tuple[int, int]]
) -> float:
    matches = mutual_by_loops(q, c)
    if not matches:
        return 0.0
    dx = [cells[j][0] - cells[i][0] for j, i in matches]
    dy = [cells[j][1] - cells[i][1] for j, i in matches]
    x_max, y_max = max(x for x, _ in cells), max(y for _, y in cells)
    total = 0.0
    for x, y in zip(dx, dy, strict=True):
        total += (x_max - abs(x - sum(dx) / len(dx))) ** 2
        total += (y_max - abs(y - sum(dy) / len(dy))) ** 2
    return total / len(q)


def test_the_rapid_score_is_its_published_definition_in_loops() -> None:
    query, candidates = seeded(1, seed=1), seeded(6, seed=2)
    scores = raw_scores(query, candidates, "rapid")
    for s, size in enumerate((2, 5)):
        across = WIDTH - size + 1
        cells = [(p % across, p // across) for p in range(len(centres(size)))]
        q = query.descriptors[s][0].astype(np.float64)
        expected = [
            rapid_by_loops(q, one.astype(np.float64), cells) for one in candidates.descriptors[s]
        ]
        assert scores[:, s] == pytest.approx(expected, rel=1e-5)


def test_sizes_are_fused_by_their_z_scores_over_the_candidates() -> None:
    # By hand: z-scores (-1, 1) twice, and a size that tells nothing.
    raw = np.array([[1.0, 30.0, 7.0], [3.0, 10.0, 7.0]])
    assert fuse(raw) == pytest.approx([-0.45 + 0.15, 0.45 - 0.15])
    assert fuse(raw, (0, 1, 5)) == pytest.approx([1, -1])
    with pytest.raises(ValueError, match="2 weights for 3"):
        fuse(raw, (1, 1))


def shuffled(patches: Patches, order: NDArray[np.int64]) -> Patches:
    """A view in which the patch at place `order[p]` stands at place p."""
    return Patches([patches.descriptors[0][:, order]], patches.centres)


def test_the_same_view_comes_first_and_a_jumbled_one_last() -> None:
    scene = seeded(1, (2,), d=64)
    generator = np.random.default_rng(0)
    count = scene.descriptors[0].shape[1]
    jumbled = shuffled(scene, generator.permutation(count))
    other = Patches([unit(generator.normal(size=(1, count, 64)))], scene.centres)
    candidates = Patches(
        [np.concatenate([p.descriptors[0] for p in (other, jumbled, scene)])], scene.centres
    )
    for method in ("rapid", "ransac"):
        assert rerank(scene, candidates, method).order[0] == 2
    assert raw_scores(scene, candidates, "ransac")[2, 0] == 1.0
    assert raw_scores(scene, candidates, "ransac")[1, 0] < 0.3


def test_ransac_finds_a_homography_that_the_rapid_score_cannot() -> None:
    # A view at another scale: x' = 1.25 x about the middle, so shifts differ all over the image.
    generator = np.random.default_rng(1)
    size, d = 1, 128
    scene = generator.normal(size=(HEIGHT * 4, WIDTH * 4, d))
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    zoomed = scene[(2 * y).ravel() + 6, (2 * x).ravel() + 8]
    plain = scene[(2.5 * y).round().astype(int).ravel() + 4, (2.5 * x).round().astype(int).ravel()]
    count = WIDTH * HEIGHT
    patches = [Patches([unit(rows)[None]], [centres(size)]) for rows in (plain, zoomed)]
    score = raw_scores(*patches, "ransac")[0, 0]
    shared = len(mutual_by_loops(*(p.descriptors[0][0].astype(np.float64) for p in patches)))
    assert score * count >= 0.3 * shared
    assert score * count >= 6


def test_fewer_than_four_matches_have_no_homography() -> None:
    eye = np.eye(9, dtype=np.float32)
    grid = np.array([[x, y] for y in range(3) for x in range(3)], np.float32)
    query = Patches([eye[None]], [grid])
    three = np.concatenate([eye[:3], np.zeros((6, 9), np.float32)])
    assert raw_scores(query, Patches([three[None]], [grid]), "ransac").tolist() == [[0.0]]


@pytest.mark.parametrize("method", ["rapid", "ransac"])
def test_a_raw_score_does_not_depend_on_the_other_candidates(method: str) -> None:
    query, many = seeded(1, seed=1), seeded(19, seed=2)
    together = raw_scores(query, many, method)
    for n in (0, 7, 18):
        one = Patches([rows[n : n + 1] for rows in many.descriptors], many.centres)
        assert raw_scores(query, one, method)[0] == pytest.approx(together[n], rel=1e-6)
    assert np.array_equal(together, raw_scores(query, many, method))


def test_equal_patches_match_once() -> None:
    # A plain image: every patch is alike, and the first of each is the other's nearest.
    rows = np.ones((1, 4, 2), np.float32) / math.sqrt(2)
    grid = np.array([[0, 0], [16, 0], [0, 16], [16, 16]], np.float32)
    plain = Patches([rows], [grid])
    # One match without a shift in the extent of one cell: (1 - 0)^2 + (1 - 0)^2 over 4 patches.
    assert raw_scores(plain, plain).tolist() == [[0.5]]


def test_int8_keeps_a_row_to_half_a_step_and_the_order_of_candidates() -> None:
    query, candidates = seeded(1, seed=1, d=64), seeded(12, seed=2, d=64)
    rows, scales = quantise(candidates.descriptors[0])
    error = np.abs(rows * scales[..., None] - candidates.descriptors[0])
    assert (error <= scales[..., None] / 2 + 1e-7).all()
    small = stored(candidates)
    assert isinstance(small, StoredPatches)
    assert rows.nbytes * 4 == candidates.descriptors[0].nbytes
    exact = rerank(query, candidates)
    assert rerank(stored(query), small).order[:3].tolist() == exact.order[:3].tolist()
    mixed = rerank(query, small)
    assert mixed.raw == pytest.approx(rerank(stored(query), small).raw, rel=0.2)


@pytest.mark.parametrize("dimension", [16, 1040, 1041, 4096])
def test_products_of_int8_are_exact_in_float32_whatever_the_dimension(dimension: int) -> None:
    """As on a GPU, at the worst: the largest numbers, of one sign, with an odd one at the end."""
    rows = torch.full((3, dimension), 127, dtype=torch.int8)
    rows[1] = -127
    rows[2, -1] = 1
    columns = rows.T.contiguous()
    found = exact_products(rows, columns).double()
    assert torch.equal(found, rows.double() @ columns.double())


def test_int8_scores_on_any_device_are_those_of_the_published_loop_over_the_int8_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a float32 ranking differs in is int8's rounding, not how or where it is computed."""
    query, candidates = stored(seeded(1, seed=1, d=64)), stored(seeded(8, seed=2, d=64))
    in_integers = raw_scores(query, candidates)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    as_on_a_gpu = raw_scores(query, candidates)
    assert np.array_equal(in_integers, as_on_a_gpu)
    for s, size in enumerate((2, 5)):
        across = WIDTH - size + 1
        cells = [(p % across, p // across) for p in range(len(centres(size)))]
        rows = [
            one.descriptors[s].astype(np.float64) * one.scales[s][..., None]
            for one in (query, candidates)
        ]
        # Nearest by inner product, as `_similarity` has it: rounded rows are not quite unit.
        unit_rows = [each / np.linalg.norm(each, axis=-1, keepdims=True) for each in rows]
        expected = [rapid_by_loops(unit_rows[0][0], one, cells) for one in unit_rows[1]]
        assert as_on_a_gpu[:, s] == pytest.approx(expected, rel=0.02)


def test_int8_moves_a_candidate_past_those_alone_that_score_nearly_the_same() -> None:
    query, candidates = seeded(1, seed=1, d=64), seeded(30, seed=2, d=64)
    exact, rounded = rerank(query, candidates), rerank(stored(query), stored(candidates))
    error = np.abs(exact.scores - rounded.scores).max()
    assert error < 0.2  # of a standard deviation
    # Any two that change places were nearer to each other than the two errors together.
    scores = exact.scores[rounded.order]
    falls = scores[:-1] - scores[1:]
    assert falls.min() >= -2 * error


def test_a_row_of_zeros_survives_quantisation() -> None:
    rows, scales = quantise(np.zeros((1, 3), np.float32))
    assert rows.tolist() == [[0, 0, 0]]
    assert scales.tolist() == [1.0]


def test_storage_of_one_size_in_int8_is_under_six_tenths_of_a_megabyte() -> None:
    # 640 x 480 has 36 x 26 patches of 5 cells.
    assert bytes_an_image([36 * 26], 512, "int8") == 936 * 516 < 600_000
    assert bytes_an_image([1131, 936, 759], 4096, "float32") == 46_301_184  # 46.3 MB, as published


def test_inliers_and_cosines_add_up_two_hundred_to_one() -> None:
    """By hand: 0.6 + 0.1, 0.5 + 0.15, 0.4 + 0.4 and 0.2 + 0.05."""
    cosines = np.array([0.6, 0.5, 0.4, 0.2])
    assert by_inliers(np.array([20, 30, 80, 10]), cosines, 200).tolist() == [2, 0, 1, 3]


def test_a_few_inliers_do_not_outweigh_a_clear_cosine_and_equals_stay_as_they_were() -> None:
    assert by_inliers(np.array([12, 35]), np.array([0.6, 0.2]), 200).tolist() == [0, 1]
    assert by_inliers(np.array([0, 0, 0]), np.array([0.3, 0.3, -np.inf]), 200).tolist() == [0, 1, 2]


def test_context_prefers_what_is_rare_and_unlike_its_neighbours() -> None:
    # A row of four patches of the common kind (1, 0), one of them rare and alone of its kind.
    rows = torch.tensor([[[1.0, 0], [1.0, 0], [0.0, 1.0], [1.0, 0]]])
    grid = torch.tensor([[0.0, 0], [16, 0], [32, 0], [48, 0]])
    weights = contextual_weights(rows, grid, torch.tensor([[0.8, 0.6]]))
    # Rarity 0.2, 0.2, 0.4, 0.2; saliency 0, 1/2, 1, 1: products 0, 0.1, 0.4, 0.2 over their mean.
    assert weights[0].tolist() == pytest.approx([0, 0.1 / 0.175, 0.4 / 0.175, 0.2 / 0.175])


def test_context_weights_the_matches_of_the_rapid_score() -> None:
    query, candidates = seeded(1, seed=1), seeded(4, seed=2)
    centroids = [unit(np.random.default_rng(3).normal(size=(5, 16))) for _ in range(2)]
    weighted = raw_scores(query, candidates, centroids=centroids)
    assert weighted.shape == (4, 2)
    assert not np.allclose(weighted, raw_scores(query, candidates))


@pytest.mark.parametrize(
    ("method", "query", "says"),
    [
        ("spatial", seeded(1), "unknown method"),
        ("rapid", seeded(2), "one query at a time"),
        ("rapid", seeded(1, (2,)), "other patch sizes"),
    ],
)
def test_what_does_not_fit_is_refused(method: str, query: Patches, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        rerank(query, seeded(3), method)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_scores_of_the_cpu() -> None:
    query, candidates = seeded(1, seed=1), seeded(6, seed=2)
    for method in ("rapid", "ransac"):
        one, other = (raw_scores(query, candidates, method, device=d) for d in ("cpu", "cuda"))
        assert one == pytest.approx(other, rel=1e-4)
