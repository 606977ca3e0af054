import hashlib
import unicodedata

import pytest

from vladmap.photos.ids import content_hash, image_id, is_image_name


def test_image_id_is_blake2b_128_of_the_utf8_path():
    expected = hashlib.blake2b("gata/å 1.jpg".encode(), digest_size=16).hexdigest()
    assert image_id("gata/å 1.jpg") == expected
    assert len(expected) == 32


def test_same_basename_in_two_folders_and_two_unicode_forms_are_four_images():
    composed = unicodedata.normalize("NFC", "å.jpg")
    decomposed = unicodedata.normalize("NFD", "å.jpg")
    assert len({image_id(path) for path in ("a/1.jpg", "b/1.jpg", composed, decomposed)}) == 4


def test_a_name_that_is_not_utf8_has_the_id_of_its_bytes():
    name = b"gata/\xe5.jpg".decode("utf-8", "surrogateescape")
    assert image_id(name) == hashlib.blake2b(b"gata/\xe5.jpg", digest_size=16).hexdigest()


def test_content_hash_is_blake2b_128_of_the_bytes():
    # The empty message's digest, from the algorithm's reference implementation.
    assert content_hash(b"") == "cae66941d9efbd404e4d88758ea67670"


@pytest.mark.parametrize(
    "name", ["a.jpg", "A.JPG", "b.JpEg", "x/y.png", "t.tif", "t.TIFF", "w.webp", "ö .bmp"]
)
def test_names_of_photographs(name):
    assert is_image_name(name)


@pytest.mark.parametrize(
    "name", ["jpg", ".jpg", "a/.jpg", "a.jpg.txt", "a.gif", "a", "a.jpg/b", ""]
)
def test_names_of_other_things(name):
    assert not is_image_name(name)
