"""What every kind of local features and every matcher must keep.

A new one is tested by a subclass, `class TestNew(FeatureKindContract): kind = "new"`, in a module
test_<name>.py of this folder: test_registry.py looks whether there is one.
"""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vladmap.features.base import FeatureKind, LocalFeatures, Matcher, shrink
from vladmap.features.registry import feature_kind, load_extractor, load_matcher, matching_device
from vladmap.schemas.rejects import UserError

HEIGHT, WIDTH = 256, 320
SHIFT = np.array([40.0, 24.0])


def rectangles(height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> np.ndarray:
    """An image of overlapping rectangles of random grey: corners of every size."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 128, np.uint8)
    for _ in range(height * width // 150):
        y, x = rng.integers(0, height), rng.integers(0, width)
        h, w = rng.integers(4, 40, 2)
        image[y : y + h, x : x + w] = rng.integers(0, 256)
    return image


def same(a: LocalFeatures, b: LocalFeatures) -> None:
    """Assert that two images have the same features, byte by byte."""
    np.testing.assert_array_equal(a.keypoints, b.keypoints)
    np.testing.assert_array_equal(a.descriptors, b.descriptors)


@lru_cache
def extracted(kind: str, seed: int = 0) -> LocalFeatures:
    """Features of `rectangles`."""
    return load_extractor(kind).extract(rectangles(seed=seed))


@lru_cache
def moved(kind: str) -> tuple[LocalFeatures, LocalFeatures]:
    """Features of two windows of one image: what is at p in the first is at p - SHIFT in the
    second."""
    x, y = SHIFT.astype(int)
    image = rectangles(HEIGHT + y, WIDTH + x)
    extractor = load_extractor(kind)
    windows = image[:HEIGHT, :WIDTH], image[y:, x:]
    first, second = (extractor.extract(np.ascontiguousarray(window)) for window in windows)
    return first, second


class _Gpu:
    """Stands for a GPU, which the machine that runs the tests may lack."""

    type = "cuda"


class MovedToGpu:
    """What was moved to the GPU: names of networks' classes, and `Tensor`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        gpu = _Gpu()
        for module in ("network", "glue"):
            monkeypatch.setattr(f"vladmap.features.{module}.torch_device", lambda name: gpu)
        for owner in (torch.nn.Module, torch.Tensor):
            monkeypatch.setattr(owner, "to", self._moving(owner.to, gpu))

    def _moving(self, original: Any, gpu: _Gpu) -> Any:
        """`original`, the method `to` of a network or a tensor, which stays where it is if it is
        to go to the GPU."""

        def to(moved: Any, *args: Any, **options: Any) -> Any:
            if args == (gpu,):
                self.names.append(type(moved).__name__)
                return moved
            return original(moved, *args, **options)

        return to


class _Contract:
    packages: tuple[str, ...] = ()
    """Modules without which the tests are skipped."""

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        for package in self.packages:
            pytest.importorskip(package)


class FeatureKindContract(_Contract):
    """What each kind of local features must keep."""

    kind: str
    norm = 1.0
    """Length of a descriptor."""
    mirrors = True
    """Whether a mirror image has its keypoints where the image has them."""

    @pytest.fixture
    def form(self) -> FeatureKind:
        return feature_kind(self.kind)

    def test_features_have_the_form_of_their_kind(self, form: FeatureKind) -> None:
        features = extracted(self.kind)
        assert form.name == self.kind
        assert len(features) > 50
        assert features.size == (WIDTH, HEIGHT)
        assert features.keypoints.shape == (len(features), 4)
        assert features.keypoints.dtype == np.float32
        assert features.descriptors.shape == (len(features), form.dimension)
        assert features.descriptors.dtype == form.dtype

    def test_descriptors_are_of_one_length(self) -> None:
        lengths = np.linalg.norm(extracted(self.kind).descriptors.astype(np.float32), axis=1)
        np.testing.assert_allclose(lengths, self.norm, rtol=0.01)

    def test_keypoints_lie_inside_the_image_and_have_a_scale(self) -> None:
        keypoints = extracted(self.kind).keypoints
        assert np.isfinite(keypoints).all()
        assert (keypoints[:, :2] >= 0).all()
        assert (keypoints[:, :2] <= [WIDTH, HEIGHT]).all()
        assert (keypoints[:, 2] > 0).all()

    def test_the_origin_is_the_corner(self) -> None:
        """What is at x in an image of width W is at W - x in its mirror image: at W - 1 - x, were
        the origin the centre of the first pixel."""
        if not self.mirrors:
            pytest.skip("its keypoints lie to one side of what they mark: tested by itself")
        extractor, image = load_extractor(self.kind), rectangles()
        plain = extracted(self.kind).keypoints[:, :2]
        for axis, side in ((0, WIDTH), (1, HEIGHT)):
            turned = np.ascontiguousarray(np.flip(image, 1 - axis))
            mirror = extractor.extract(turned).keypoints[:, :2]
            mirror[:, axis] = side - mirror[:, axis]
            apart = mirror[None] - plain[:, None]
            off = apart[np.arange(len(plain)), np.linalg.norm(apart, axis=2).argmin(axis=1)]
            off = off[np.linalg.norm(off, axis=1) < 2.0]
            assert len(off) > 0.1 * len(plain)
            np.testing.assert_allclose(np.median(off, axis=0), 0.0, atol=0.4)

    def test_a_large_image_is_shrunk_and_its_positions_are_of_the_full_size(self) -> None:
        image = rectangles()
        small, factor = shrink(Image.fromarray(image), WIDTH // 2)
        of_small = load_extractor(self.kind).extract(np.asarray(small)).keypoints
        keypoints = load_extractor(self.kind, max_image_size=WIDTH // 2).extract(image).keypoints
        assert factor == (2.0, 2.0)
        assert len(keypoints) > 20
        np.testing.assert_allclose(keypoints[:, :3], 2.0 * of_small[:, :3], rtol=1e-5)

    def test_the_same_pixels_give_the_same_bytes_whatever_came_before(self) -> None:
        extractor = load_extractor(self.kind)
        extractor.extract(rectangles(seed=1))
        same(extractor.extract(rectangles()), extracted(self.kind))

    def test_it_survives_pickling(self) -> None:
        again = pickle.loads(pickle.dumps(load_extractor(self.kind)))
        same(again.extract(rectangles()), extracted(self.kind))

    @pytest.mark.medium
    def test_images_beside_each_other_have_the_features_that_each_has_alone(
        self, form: FeatureKind
    ) -> None:
        if form.parallelism != "threads":
            pytest.skip("extracts in processes")
        extractor = load_extractor(self.kind)
        images = [rectangles(seed=seed) for seed in (0, 1, 0, 1)]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(extractor.extract, images))
        for seed, features in zip((0, 1, 0, 1), together, strict=True):
            same(features, extracted(self.kind, seed))

    @pytest.mark.medium
    def test_images_of_a_batch_have_the_features_that_each_has_alone(
        self, form: FeatureKind
    ) -> None:
        """A network adds up a batch in another order: a detection at the threshold may differ."""
        extractor = load_extractor(self.kind)
        blank = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
        batch = extractor.extract_batch([rectangles(seed=0), blank, rectangles(seed=1)])
        assert len(batch) == 3
        same(batch[1], form.none((WIDTH, HEIGHT)))
        for seed, features in ((0, batch[0]), (1, batch[2])):
            alone = extracted(self.kind, seed)
            apart = np.abs(features.keypoints[:, None] - alone.keypoints).max(axis=2)
            others = apart.argmin(axis=1)
            own = np.flatnonzero(apart.min(axis=1) < 0.01)
            others = others[own]
            assert len(own) >= 0.99 * max(len(alone), len(features))
            np.testing.assert_allclose(
                features.descriptors[own].astype(float),
                alone.descriptors[others].astype(float),
                atol=2e-3 * self.norm,
            )
        with pytest.raises(ValueError, match="one size"):
            extractor.extract_batch([blank, blank[1:]])

    def test_an_image_that_shows_nothing_has_no_features(self, form: FeatureKind) -> None:
        for value in (0, 128, 255):
            features = load_extractor(self.kind).extract(np.full((64, 96, 3), value, np.uint8))
            none = form.none((96, 64))
            assert features.size == none.size
            same(features, none)
            assert features.descriptors.dtype == none.descriptors.dtype

    @pytest.mark.parametrize("shape", [(16, 16), (33, 47), (20, 200)])
    def test_images_of_odd_and_small_sizes_are_no_trouble(self, shape: tuple[int, int]) -> None:
        features = load_extractor(self.kind).extract(rectangles(*shape))
        assert features.size == shape[::-1]
        assert (features.keypoints[:, :2] <= features.size).all()

    def test_no_more_features_than_asked_for_and_they_are_the_strongest(
        self, form: FeatureKind
    ) -> None:
        few = load_extractor(self.kind, max_features=30).extract(rectangles())
        assert len(few) == 30
        same(few, form.strongest(few, 30))
        if form.order == "first":
            same(few, extracted(self.kind).rows(np.arange(30)))
        else:
            assert few.keypoints[:, 2].min() >= np.median(extracted(self.kind).keypoints[:, 2])

    def test_it_is_extracted_on_the_device_that_was_asked_for_or_on_the_only_one(
        self, form: FeatureKind, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        moved = MovedToGpu(monkeypatch)
        extractor = load_extractor(self.kind, device="cuda")
        same(extractor.extract(rectangles()), extracted(self.kind))
        if form.devices == ("cpu",):
            assert form.device("cuda") == "cpu"
            assert moved.names == []
            return
        assert form.devices == ("cpu", "cuda")
        assert form.device("cuda") == "cuda"
        assert extractor.device.type == "cuda"  # type: ignore[attr-defined]
        assert type(extractor._load()).__name__ in moved.names  # type: ignore[attr-defined]
        assert "Tensor" in moved.names
        assert pickle.loads(pickle.dumps(extractor)).device.type == "cuda"

    def test_an_unknown_or_missing_device_is_refused(
        self, form: FeatureKind, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(ValueError, match="unknown device 'tpu'; known are cpu, cuda"):
            load_extractor(self.kind, device="tpu")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        if "cuda" in form.devices:
            with pytest.raises(UserError, match="a GPU was asked for"):
                load_extractor(self.kind, device="cuda")

    def test_nonsense_is_refused(self) -> None:
        for settings in ({"max_features": 0}, {"max_image_size": 0}):
            with pytest.raises(ValueError, match="at least"):
                load_extractor(self.kind, **settings)


class MatcherContract(_Contract):
    """What each matcher must keep, for each kind of features that it matches."""

    features: str
    matcher: str
    right = 0.9
    """Share of its matches of two windows of an image that are right."""

    @pytest.fixture
    def match(self) -> Any:
        return load_matcher(self.features, self.matcher).match

    def test_matches_of_a_moved_image_agree_with_its_motion(self, match: Any) -> None:
        a, b = moved(self.features)
        pairs = match(a, b)
        motion = a.keypoints[pairs[:, 0], :2] - b.keypoints[pairs[:, 1], :2]
        assert len(pairs) > 50
        np.testing.assert_allclose(np.median(motion, axis=0), SHIFT, atol=0.5)
        assert (np.linalg.norm(motion - SHIFT, axis=1) < 3.0).mean() > self.right

    def test_matches_are_one_to_one_by_rising_row_of_the_first(self, match: Any) -> None:
        pairs = match(*moved(self.features))
        assert pairs.dtype == np.uint32
        assert pairs.shape == (len(pairs), 2)
        assert (np.diff(pairs[:, 0].astype(int)) > 0).all()
        assert len(np.unique(pairs[:, 1])) == len(pairs)

    def test_an_image_and_itself_match_row_by_row(self, match: Any) -> None:
        features = extracted(self.features)
        pairs = match(features, features)
        assert len(pairs) > 0.5 * len(features)
        assert (pairs[:, 0] == pairs[:, 1]).mean() > 0.95

    def test_images_of_different_things_match_less(self, match: Any) -> None:
        a, b = moved(self.features)
        assert len(match(a, extracted(self.features, 1))) < 0.3 * len(match(a, b))

    @pytest.mark.medium
    def test_the_same_features_have_the_same_matches_in_every_thread(self, match: Any) -> None:
        a, b = moved(self.features)
        alone = match(a, b)
        again = pickle.loads(pickle.dumps(load_matcher(self.features, self.matcher)))
        np.testing.assert_array_equal(again.match(a, b), alone)
        with ThreadPoolExecutor(3) as pool:
            for pairs in pool.map(lambda _: match(a, b), range(3)):
                np.testing.assert_array_equal(pairs, alone)

    def test_an_image_without_features_has_no_matches(self, match: Any) -> None:
        none, some = feature_kind(self.features).none((WIDTH, HEIGHT)), extracted(self.features)
        for a, b in ((none, some), (some, none), (none, none)):
            assert match(a, b).shape == (0, 2)
            assert match(a, b).dtype == np.uint32

    def test_a_single_feature_is_no_trouble(self, match: Any) -> None:
        some = extracted(self.features)
        assert len(match(some.rows(np.array([0])), some)) <= 1
        assert len(match(some, some.rows(np.array([0])))) <= 1

    def test_images_of_unknown_size_match_too(self, match: Any) -> None:
        a, b = (LocalFeatures(each.keypoints, each.descriptors) for each in moved(self.features))
        assert len(match(a, b)) > 50

    def test_descriptors_of_another_kind_are_refused(self, match: Any) -> None:
        other = LocalFeatures(np.zeros((3, 4), np.float32), np.zeros((3, 17), np.float16))
        with pytest.raises(ValueError, match=r"kinds|matches"):
            match(extracted(self.features), other)

    def test_a_network_matches_on_the_device_that_was_asked_for(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        a, b = moved(self.features)
        expected = load_matcher(self.features, self.matcher).match(a, b)
        gpu = MovedToGpu(monkeypatch)
        matcher: Any = load_matcher(self.features, self.matcher, "cuda")
        np.testing.assert_array_equal(matcher.match(a, b), expected)
        if matching_device(self.matcher, "cuda") == "cpu":
            assert gpu.names == []
            return
        assert matcher.device.type == "cuda"
        assert type(matcher._load()).__name__ in gpu.names
        assert gpu.names.count("Tensor") >= 6  # keypoints, descriptors and size of two images
        assert pickle.loads(pickle.dumps(matcher)).device.type == "cuda"

    def test_what_its_matches_are_worth_is_known(self) -> None:
        matcher: Matcher = load_matcher(self.features, self.matcher)
        assert 0.0 <= matcher.min_inlier_share < 1.0
        assert matcher.inliers_a_cosine > 0
