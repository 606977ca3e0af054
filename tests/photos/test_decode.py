import io
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile

from tests.photos.bad_photos import (
    ORIENTED,
    bad_files,
    encode,
    exif_block,
    gps_tags,
    png,
    texture,
    write_odd_inputs,
)
from tests.photos.headers import read_header
from vladmap.photos.decoding.decode import decode_rgb, inspect, sharpness
from vladmap.schemas.rejects import PhotoError, RejectReason

PHOTOS = Path(
    os.environ.get("VLADMAP_PHOTOS", Path(__file__).parents[2].parent / "shared" / "photos")
)


def real_photos(name: str) -> list[bytes]:
    paths = sorted((PHOTOS / name).glob("*.jpg"))
    if not paths:
        pytest.skip(f"no photographs in {PHOTOS / name}; set VLADMAP_PHOTOS")
    return [path.read_bytes() for path in paths]


def decibels(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(float) - b.astype(float)) ** 2)
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


class TestOrientation:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_every_orientation_comes_out_upright(self, kind, orientation):
        upright = texture(1)
        stored = np.ascontiguousarray(ORIENTED[orientation](upright))
        exif = exif_block(base={ExifTags.Base.Orientation: orientation})
        data = encode(stored, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
        decoded = decode_rgb(data)
        assert decoded.shape == upright.shape
        assert decibels(decoded, upright) > 30
        header, _ = inspect(data)
        assert (header.width, header.height, header.orientation) == (192, 144, orientation)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_the_target_is_asked_and_given_in_the_upright_frame(self, orientation):
        upright = texture(2, 1200, 600)
        stored = np.ascontiguousarray(ORIENTED[orientation](upright))
        exif = exif_block(base={ExifTags.Base.Orientation: orientation})
        asked = []

        def target(width: int, height: int) -> tuple[int, int]:
            asked.append((width, height))
            return 120, 60

        decoded = decode_rgb(encode(stored, exif=exif), target=target)
        assert asked == [(1200, 600)]
        assert decoded.shape == (60, 120, 3)
        expected = Image.fromarray(upright).resize((120, 60), Image.Resampling.BILINEAR)
        assert decibels(decoded, np.asarray(expected)) > 35


class TestKindsOfPixels:
    grey = texture(3)[..., 0]

    def test_grey_has_three_equal_channels(self):
        decoded = decode_rgb(encode(self.grey, "PNG"))
        assert (decoded == self.grey[..., None]).all()

    def test_cmyk_is_inverted_as_adobe_writes_it(self):
        rgb = texture(4)
        data = encode(Image.fromarray(rgb).convert("CMYK"), quality=95)
        assert b"Adobe" in data
        assert decibels(decode_rgb(data), rgb) > 25

    def test_cmyk_tiff_is_not_inverted(self):
        rgb = texture(4)
        data = encode(Image.fromarray(rgb).convert("CMYK"), "TIFF")
        assert decibels(decode_rgb(data), rgb) > 40

    def test_sixteen_bit_grey_is_scaled_and_not_clipped(self):
        for value, expected in ((0, 0), (128, 0), (129, 1), (32_768, 128), (65_535, 255)):
            data = encode(np.full((16, 16), value, np.uint16), "PNG")
            assert (decode_rgb(data) == expected).all(), value

    def test_sixteen_bit_tiff_of_both_byte_orders(self):
        values = np.linspace(0, 65_535, 32 * 16).astype(np.uint16).reshape(16, 32)
        for dtype in ("<u2", ">u2"):
            decoded = decode_rgb(encode(Image.fromarray(values.astype(dtype)), "TIFF"))
            assert np.abs(decoded[..., 0] - values / 257).max() <= 0.5

    def test_sixteen_bit_colour(self):
        values = (texture(5, 24, 24).astype(np.uint16) * 257).astype(">u2")
        rows = b"".join(b"\0" + row.tobytes() for row in values)
        assert (decode_rgb(png(24, 24, 16, 2, rows)) == texture(5, 24, 24)).all()

    def test_one_bit(self):
        bits = texture(6)[..., 0] > 127
        assert (decode_rgb(encode(Image.fromarray(bits), "PNG"))[..., 0] == bits * 255).all()

    def test_palette(self):
        image = Image.fromarray(texture(7)).quantize(64)
        expected = np.asarray(image.convert("RGB"))
        assert (decode_rgb(encode(image, "PNG")) == expected).all()

    def test_transparency_is_laid_on_white(self):
        rgb = texture(8)
        alpha = np.full(rgb.shape[:2], 255, np.uint8)
        alpha[:, 96:] = 0
        decoded = decode_rgb(encode(np.dstack([rgb, alpha]), "PNG"))
        assert (decoded[:, :96] == rgb[:, :96]).all()
        assert (decoded[:, 96:] == 255).all()

    def test_half_transparent_black_is_mid_grey(self):
        pixels = np.zeros((20, 20, 2), np.uint8)
        pixels[..., 1] = 128
        decoded = decode_rgb(encode(Image.fromarray(pixels, "LA"), "PNG"))
        assert (decoded == 127).all()

    def test_a_transparent_palette_entry_and_a_transparent_grey(self):
        image = Image.fromarray(np.repeat([[0, 1]], 20, 0).repeat(10, 1).astype(np.uint8), "P")
        image.putpalette([10, 20, 30, 40, 50, 60])
        decoded = decode_rgb(encode(image, "PNG", transparency=0))
        assert (decoded[:, :10] == 255).all()
        assert (decoded[:, 10:] == (40, 50, 60)).all()
        grey = np.repeat([[7, 90]], 20, 0).repeat(10, 1).astype(np.uint8)
        decoded = decode_rgb(encode(grey, "PNG", transparency=7))
        assert (decoded[:, :10] == 255).all()
        assert (decoded[:, 10:] == 90).all()

    @pytest.mark.parametrize("full", [1.0, 255.0, 65_535.0])
    def test_floating_point_grey_of_the_usual_scales(self, full):
        values = np.linspace(0, full, 32 * 16, dtype=np.float32).reshape(16, 32)
        decoded = decode_rgb(encode(Image.fromarray(values), "TIFF"))
        assert np.abs(decoded[..., 0] - values * 255 / full).max() <= 0.51

    def test_floating_point_that_is_no_number_is_black(self):
        values = np.full((16, 16), 0.5, np.float32)
        values[0] = np.nan
        values[1] = np.inf
        values[2] = -5.0
        decoded = decode_rgb(encode(Image.fromarray(values), "TIFF"))[..., 0]
        assert (decoded[:3] == 0).all()
        assert (decoded[3:] == 128).all()

    def test_thirty_two_bit_grey(self):
        values = np.array([[0, 65_535]] * 16, np.int32).repeat(8, 1)
        decoded = decode_rgb(encode(Image.fromarray(values), "TIFF"))[..., 0]
        assert decoded[0].tolist() == [0] * 8 + [255] * 8

    def test_every_odd_input_decodes_to_the_size_it_should(self, tmp_path):
        for name, accepted in write_odd_inputs(tmp_path).items():
            data = (tmp_path / name).read_bytes()
            assert decode_rgb(data).shape == (accepted.height, accepted.width, 3)
            header, value = inspect(data)
            assert header == read_header(data)
            assert value > 0


class TestTarget:
    @pytest.mark.parametrize("size", [(448, 336), (640, 480), (1023, 767)])
    def test_a_reduced_jpeg_is_as_good_as_a_full_decoding(self, size):
        data = real_photos("larochelle")[0]
        full = Image.fromarray(decode_rgb(data)).resize(size, Image.Resampling.BILINEAR)
        assert decibels(decode_rgb(data, target=lambda w, h: size), np.asarray(full)) > 45

    def test_odd_sizes_are_not_shifted(self):
        # A ramp across 1001 pixels: a shift by half a reduced pixel would show as an offset.
        ramp = np.broadcast_to(np.linspace(0, 250, 1001)[None, :, None], (699, 1001, 3))
        data = encode(np.rint(ramp).astype(np.uint8), quality=100)
        decoded = decode_rgb(data, target=lambda w, h: (100, 70))[35, :, 0].astype(float)
        centres = (np.arange(100) + 0.5) * 10.01 - 0.5
        assert np.abs(decoded - centres * 0.25)[2:-2].max() < 1.0

    def test_enlarging(self):
        assert decode_rgb(encode(texture(9)), target=lambda w, h: (2 * w, 2 * h)).shape == (
            288,
            384,
            3,
        )

    def test_an_error_of_the_caller_is_the_callers(self):
        with pytest.raises(ZeroDivisionError):
            decode_rgb(encode(texture(9)), target=lambda w, h: (1 // 0, 1))

    def test_the_result_is_the_callers_to_write_to(self):
        decoded = decode_rgb(encode(texture(9)))
        decoded[:] = 0
        assert decoded.flags.c_contiguous


class TestTruncation:
    """No shortened file decodes, at whatever scale libjpeg is asked for."""

    @pytest.mark.parametrize(
        ("size", "options"),
        [
            ((192, 144), {}),
            ((1104, 600), {}),
            ((2208, 1104), {}),
            ((4416, 1104), {}),
            ((4416, 1104), {"progressive": True}),
            ((2208, 1104), {"restart_marker_blocks": 8}),
        ],
    )
    def test_jpeg_at_every_reduction(self, size, options):
        data = encode(texture(10, *size), **options)
        inspect(data)
        scan = data.index(b"\xff\xda") + 14
        cuts = np.unique(np.linspace(scan, len(data) - 1, 12).astype(int)).tolist()
        for cut in [*cuts, len(data) - 2, len(data) - 3]:
            for shortened in (data[:cut], data[:cut] + bytes(len(data) - cut)):
                for read in (inspect, decode_rgb):
                    with pytest.raises(PhotoError) as caught:
                        read(shortened)
                    assert caught.value.reason is RejectReason.TRUNCATED

    def test_the_reduced_decoder_itself_reads_to_the_end_of_the_stream(self):
        # Without our look at the end marker, at 1/8: the claim of `inspect` on its own.
        data = encode(texture(11, 4416, 1104))
        for cut in (len(data) - 40, len(data) * 9 // 10, len(data) // 2):
            image = Image.open(io.BytesIO(data[:cut]))
            image.draft("L", (552, 138))
            with pytest.raises(OSError, match="truncated"):
                image.load()

    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "BMP"])
    def test_other_formats(self, kind):
        data = encode(texture(12), kind)
        for cut in (len(data) - 100, len(data) * 3 // 4, len(data) // 2):
            for read in (inspect, decode_rgb):
                with pytest.raises(PhotoError) as caught:
                    read(data[:cut])
                assert caught.value.reason in (RejectReason.TRUNCATED, RejectReason.DECODE_FAILED)

    def test_pillow_is_not_told_to_accept_truncated_files(self):
        assert ImageFile.LOAD_TRUNCATED_IMAGES is False

    @pytest.mark.parametrize("name", sorted(bad_files()))
    def test_bad_files_have_their_reason_from_inspect_and_decode(self, name):
        data, reason = bad_files()[name]
        for read in (inspect, decode_rgb):
            with pytest.raises(PhotoError) as caught:
                read(data)
            assert caught.value.reason is reason

    def test_a_damaged_png_is_an_error(self):
        data = bytearray(encode(texture(13), "PNG"))
        data[len(data) // 2] ^= 0xFF
        for read in (inspect, decode_rgb):
            with pytest.raises(PhotoError) as caught:
                read(bytes(data))
            assert caught.value.reason is RejectReason.DECODE_FAILED


class TestSharpness:
    def test_by_hand(self):
        # One white pixel in black: Laplacian -1020 once and 255 four times among 14 x 14.
        grey = np.zeros((16, 16), np.uint8)
        grey[8, 8] = 255
        values = np.array([-1020.0] + [255.0] * 4 + [0.0] * 191)
        assert sharpness(grey) == pytest.approx(values.var())

    def test_a_flat_image_has_none_and_blur_takes_it_away(self):
        assert sharpness(np.full((100, 100), 9, np.uint8)) == 0.0
        from PIL import ImageFilter

        sharp = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300), np.uint8))
        blurred = sharp.filter(ImageFilter.GaussianBlur(2))
        assert sharpness(np.asarray(blurred)) < 0.05 * sharpness(np.asarray(sharp))

    def test_comparable_between_sizes_of_one_view(self):
        for data in real_photos("larochelle")[:2]:
            values = []
            full = Image.fromarray(decode_rgb(data)).convert("L")
            for scale in (1, 2, 4):
                size = (full.width // scale, full.height // scale)
                values.append(sharpness(np.asarray(full.resize(size, Image.Resampling.BICUBIC))))
            assert max(values) / min(values) < 1.1

    def test_inspect_agrees_with_a_full_decoding(self):
        for data in real_photos("larochelle")[:2] + real_photos("lund")[:2]:
            grey = np.asarray(Image.fromarray(decode_rgb(data)).convert("L"))
            assert inspect(data)[1] == pytest.approx(sharpness(grey), rel=0.05)


def test_threads_do_not_disturb_each_other_nor_pillows_globals(monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    filters = list(warnings.filters)
    files = [
        encode(texture(seed, 300, 200), kind)
        for seed, kind in enumerate(["JPEG", "PNG", "TIFF", "WEBP", "BMP"] * 4)
    ]
    alone = [(decode_rgb(data), inspect(data)) for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: (decode_rgb(data), inspect(data)), files * 3))
    for (pixels, facts), (expected, expected_facts) in zip(together, alone * 3, strict=True):
        assert (pixels == expected).all()
        assert facts == expected_facts
    assert Image.MAX_IMAGE_PIXELS == 100
    assert warnings.filters == filters
    assert not recwarn.list


@pytest.mark.medium
def test_no_mutation_of_a_photograph_raises_anything_but_a_photo_error():
    xmp = (
        b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-"
        b"syntax-ns#'><rdf:Description xmlns:exif='http://ns.adobe.com/exif/1.0/' "
        b"exif:GPSLatitude='48,51.5N' exif:GPSLongitude='2,15E'/></rdf:RDF></x:xmpmeta>"
    )
    base = {
        ExifTags.Base.ImageDescription: '{"MAPLatitude": 1, "MAPCaptureTime": "2014_06_07"}',
        ExifTags.Base.Orientation: 6,
        ExifTags.Base.Make: "Acme",
    }
    details = {
        ExifTags.Base.DateTimeOriginal: "2021:10:15 16:55:46",
        ExifTags.Base.FocalLength: 4.5,
        ExifTags.Base.FocalLengthIn35mmFilm: 28,
    }
    exif = exif_block(base=base, details=details, gps=gps_tags(55.0, 13.0, GPSAltitude=3.0))
    generator = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind, rounds in (("JPEG", 600), ("PNG", 100), ("TIFF", 200), ("WEBP", 100)):
            options = {"xmp": xmp} if kind in ("JPEG", "WEBP") else {}
            data = encode(texture(14, 48, 32), kind, exif=exif, **options)
            for _ in range(rounds):
                mutated = bytearray(data)
                # Half of the blows fall on the metadata, which lie in front.
                end = len(data) if generator.random() < 0.5 else min(len(data), 1_200)
                for place in generator.integers(0, end, generator.integers(1, 12)):
                    mutated[place] = generator.integers(0, 256)
                if generator.random() < 0.2:
                    del mutated[generator.integers(0, len(mutated)) :]
                for read in (read_header, inspect, decode_rgb):
                    try:
                        result = read(bytes(mutated), max_pixels=1_000_000)
                    except PhotoError:
                        continue
                    if read is inspect:
                        header, value = result
                        assert np.isfinite(value)
                        assert header.latitude is None or abs(header.latitude) <= 90
