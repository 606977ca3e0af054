"""Photographs whose header cannot be used, each with its reason."""

import pytest
from PIL import Image

from tests.photos.bad_photos import (
    bad_files,
    encode,
    exif_block,
    gps_tags,
    jpeg_bomb,
    texture,
    write_bad_inputs,
    write_odd_inputs,
)
from tests.photos.headers import B, read_header
from vladmap.schemas.rejects import PhotoError, RejectReason


class TestErrors:
    @pytest.mark.parametrize("name", sorted(bad_files()))
    def test_each_bad_file_for_its_reason(self, name):
        data, reason = bad_files()[name]
        with pytest.raises(PhotoError) as caught:
            read_header(data)
        assert caught.value.reason is reason
        assert caught.value.detail
        assert "\n" not in caught.value.detail

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"<!doctype html><p>404", "an HTML page"),
            (b"\xef\xbb\xbf\n <html>", "an HTML page"),
            (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
            (b'{"error": 404}', "JSON"),
            (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
            (b"hello world", "text that begins with 'hello world'"),
            (b"BMW cars, a list of them all", "text that begins with"),
            (b"GIF89a" + bytes(20), "GIF"),
            (b"%PDF-1.4", "PDF"),
            (b"\0\0\0\x18ftypheic" + bytes(9), "HEIC"),
            (b"\0\0\0\x18ftypisom" + bytes(9), "video"),
            (bytes(5_000), "zero bytes"),
            (b"\x93\x12\xfe\xdc\x88" * 50, "unknown binary data"),
        ],
    )
    def test_what_is_no_image_is_said_to_look_like_something(self, data, words):
        with pytest.raises(PhotoError) as caught:
            read_header(data)
        assert caught.value.reason is RejectReason.NOT_AN_IMAGE
        assert words in caught.value.detail

    def test_too_many_pixels_names_the_limit_and_the_option(self):
        with pytest.raises(PhotoError) as caught:
            read_header(jpeg_bomb(), max_pixels=1_000_000)
        assert "1,000,000" in caught.value.detail
        assert "--max-pixels" in caught.value.detail

    def test_the_limit_itself_is_allowed(self):
        data = encode(texture(0))
        assert read_header(data, max_pixels=192 * 144).width == 192
        with pytest.raises(PhotoError):
            read_header(data, max_pixels=192 * 144 - 1)

    def test_sixteen_pixels_a_side_are_enough_and_fifteen_are_not(self):
        assert read_header(encode(texture(0)[:16, :16])).width == 16
        with pytest.raises(PhotoError) as caught:
            read_header(encode(texture(0)[:15]))
        assert caught.value.reason is RejectReason.TOO_SMALL
        assert "16" in caught.value.detail

    def test_the_name_plays_no_part_a_png_named_jpg_is_a_png(self):
        assert read_header(encode(texture(0), "PNG")).format == "PNG"

    def test_exif_that_does_not_parse_costs_the_exif_only(self):
        exif = exif_block(base={B.Make: "Acme"}, gps=gps_tags(1.0, 2.0))
        broken = exif.replace(b"MM\0*", b"XX\0*").replace(b"II*\0", b"XX*\0")
        header = read_header(encode(texture(0), exif=broken))
        assert (header.make, header.latitude) == (None, None)
        assert header.notes == ("exif_unreadable",)


def test_pillows_globals_are_neither_obeyed_nor_touched(monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for kind in ("JPEG", "PNG", "TIFF", "WEBP", "BMP"):
        assert read_header(encode(texture(0), kind)).width == 192
    assert Image.MAX_IMAGE_PIXELS == 100
    assert not recwarn.list


def test_bad_and_odd_inputs_are_as_their_dictionaries_say(tmp_path):
    reasons = write_bad_inputs(tmp_path / "bad")
    assert (tmp_path / "bad" / "folder.jpg").is_dir()
    for name, reason in reasons.items():
        if reason is not RejectReason.NOT_A_FILE:
            with pytest.raises(PhotoError) as caught:
                read_header((tmp_path / "bad" / name).read_bytes())
            assert caught.value.reason is reason

    odd = write_odd_inputs(tmp_path / "odd")
    files = {path.relative_to(tmp_path / "odd").as_posix() for path in (tmp_path / "odd").rglob("*")
             if path.is_file()}  # fmt: skip
    assert files == set(odd)
    contents = [(tmp_path / "odd" / name).read_bytes() for name in odd]
    assert len(set(contents)) == len(contents)
    for data, accepted in zip(contents, odd.values(), strict=True):
        header = read_header(data)
        assert (header.width, header.height) == (accepted.width, accepted.height)
        assert ("position_invalid" in header.notes) is accepted.position_invalid
        if accepted.position is None:
            assert (header.latitude, header.longitude) == (None, None)
        else:
            found = (header.latitude, header.longitude)
            assert found == pytest.approx(accepted.position, abs=1e-9)
