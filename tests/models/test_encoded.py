"""JPEGs that a device decodes; a decoder on the CPU stands for the GPU's."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import ExifTags, Image
from torch import Tensor

from tests.photos.bad_photos import exif_block, texture
from vladmap.models import encoded as encoded_module
from vladmap.models.encoded import decoded_stack, resized
from vladmap.photos.decoding.decode import decode_rgb
from vladmap.photos.decoding.encoded import Encoded, encoded
from vladmap.schemas.rejects import PhotoError, RejectReason
from vladmap.weights.preprocessing import FixedSize, InputSize, Size

CPU = torch.device("cpu")
MOST = 10**8


def jpeg(
    seed: int, size: tuple[int, int] = (192, 144), orientation: int = 1, mode: str = "RGB"
) -> bytes:
    stream = io.BytesIO()
    exif = exif_block(base={ExifTags.Base.Orientation: orientation})
    Image.fromarray(texture(seed, *size)).convert(mode).save(stream, "JPEG", exif=exif)
    return stream.getvalue()


def libjpeg(files: list[Tensor]) -> list[Tensor]:
    """As nvJPEG does: all or an error, grey as RGB, no CMYK."""
    found = []
    for file in files:
        try:
            pixels = simplejpeg.decode_jpeg(file.numpy().tobytes(), "RGB")
        except ValueError as error:
            raise RuntimeError("image not supported") from error
        found.append(torch.from_numpy(pixels).permute(2, 0, 1))
    return found


def known(data: bytes) -> Encoded:
    found = encoded(data, MOST)
    assert found is not None
    return found


@pytest.mark.parametrize("size", [(448, 336), (64, 48), (200, 150), (192, 30)])
@pytest.mark.parametrize("source", [(192, 144), (97, 31), (640, 480)])
def test_images_are_resized_as_pillow_does_to_one_grey_level(
    source: tuple[int, int], size: tuple[int, int]
) -> None:
    images = [texture(seed, 640, 480)[: source[1], : source[0]] for seed in range(2)]
    enlarged = size[0] > source[0]
    method = Image.Resampling.HAMMING if enlarged else Image.Resampling.BILINEAR
    expected = np.stack([Image.fromarray(image).resize(size, method) for image in images])
    stack = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    found = resized(stack, size[::-1]).permute(0, 2, 3, 1).numpy()
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 1
    assert difference.mean() < 0.2


@pytest.mark.parametrize("wanted", [InputSize(100, 128), InputSize(320, 448), FixedSize(154, 140)])
def test_a_batch_of_all_orientations_and_sizes_is_what_the_cpu_decodes(wanted: Size) -> None:
    files = [jpeg(n, orientation=n % 9 or 1) for n in range(9)]
    files += [jpeg(20, (96, 72)), jpeg(21, (96, 72), mode="L"), jpeg(22, (192, 144))]
    pictures = [known(data) for data in files]
    by_size: dict[tuple[int, int], list[int]] = {}
    for place, picture in enumerate(pictures):
        by_size.setdefault(wanted.target(*picture.upright_size), []).append(place)
    assert len(by_size) > 1 or isinstance(wanted, FixedSize)
    for (width, height), places in by_size.items():
        chosen = [pictures[place] for place in places]
        stack, errors, on_cpu = decoded_stack(chosen, (height, width), libjpeg, CPU)
        assert not errors
        assert on_cpu == 0
        for image, place in zip(stack.numpy(), places, strict=True):
            expected = decode_rgb(files[place], target=wanted.target)
            assert image.shape == expected.shape
            assert np.abs(image.astype(int) - expected).max() <= 3


def test_however_few_images_memory_holds_the_stack_is_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pictures = [known(jpeg(n, orientation=1 + n % 2)) for n in range(5)]
    whole = decoded_stack(pictures, (96, 128), libjpeg, CPU).images
    monkeypatch.setattr(encoded_module, "_NUMBERS_AT_ONCE", 1)
    assert torch.equal(decoded_stack(pictures, (96, 128), libjpeg, CPU).images, whole)


def test_what_the_device_cannot_decode_the_cpu_does_and_a_damaged_one_costs_itself_alone() -> None:
    good, damaged = [jpeg(n) for n in range(4)], bytearray(jpeg(9))
    middle = len(damaged) // 2
    damaged[middle : middle + 200] = bytes(200)
    pictures = [known(data) for data in good]
    pictures.insert(2, Encoded(bytes(damaged), (192, 144), 1, MOST))

    def some(files: list[Tensor]) -> list[Tensor]:
        if any(file.numpy().tobytes() in (bytes(damaged), good[0]) for file in files):
            raise RuntimeError("CUDA decoder: unsupported")
        return libjpeg(files)

    stack, errors, on_cpu = decoded_stack(pictures, (144, 192), some, CPU)
    assert set(errors) == {2}
    assert isinstance(errors[2], PhotoError)
    assert errors[2].reason is RejectReason.DECODE_FAILED
    assert on_cpu == 2
    for place, data in zip((0, 1, 3, 4), good, strict=True):
        assert np.array_equal(stack[place].numpy(), decode_rgb(data))


class Counted:
    """A decoder that refuses what it is given with one of some files; counts calls and files."""

    def __init__(self, refused: list[bytes]) -> None:
        self.refused, self.calls, self.files = refused, 0, 0

    def __call__(self, files: list[Tensor]) -> list[Tensor]:
        self.calls += 1
        self.files += len(files)
        if any(file.numpy().tobytes() in self.refused for file in files):
            raise RuntimeError("Error while decoding JPEG images: Failed to get image info: 2")
        return libjpeg(files)


def test_one_file_that_is_refused_does_not_make_its_batch_be_decoded_one_by_one() -> None:
    files = [jpeg(n, (48, 32)) for n in range(32)]
    decoder = Counted([files[19]])
    stack, errors, on_cpu = decoded_stack([known(one) for one in files], (32, 48), decoder, CPU)
    assert (errors, on_cpu) == ({}, 1)
    assert decoder.calls == 1 + 2 * 5  # log2(32) times both halves
    assert decoder.files == 32 + 32 + 16 + 8 + 4 + 2
    for image, data in zip(stack.numpy(), files, strict=True):
        assert np.array_equal(image, decode_rgb(data))


def test_where_all_are_refused_each_is_tried_alone_once() -> None:
    files = [jpeg(n, (48, 32)) for n in range(8)]
    decoder = Counted(files)
    found = decoded_stack([known(one) for one in files], (32, 48), decoder, CPU)
    assert (found.errors, found.on_cpu) == ({}, 8)
    assert decoder.calls == 15


def test_an_end_of_memory_halves_what_is_decoded_together_and_one_alone_goes_to_the_cpu() -> None:
    files, asked = [jpeg(n, (48, 32)) for n in range(4)], list[int]()

    def full(files: list[Tensor]) -> list[Tensor]:
        asked.append(len(files))
        raise torch.OutOfMemoryError("played")

    stack, errors, on_cpu = decoded_stack([known(one) for one in files], (32, 48), full, CPU)
    assert (errors, on_cpu) == ({}, 4)
    assert asked == [4, 2, 1, 1, 2, 1, 1]
    for image, data in zip(stack.numpy(), files, strict=True):
        assert np.array_equal(image, decode_rgb(data))


def test_what_is_no_plain_jpeg_is_not_left_to_the_device() -> None:
    stream = io.BytesIO()
    Image.fromarray(texture(0)).save(stream, "PNG")
    assert encoded(stream.getvalue(), MOST) is None
    assert encoded(jpeg(0, mode="CMYK"), MOST) is None
    with pytest.raises(PhotoError, match="limit"):
        encoded(jpeg(0), 100)
    assert known(jpeg(0, orientation=6)).upright_size == (144, 192)


def test_torchvision_is_asked_as_it_wants_to_be() -> None:
    """Its decoder on the CPU: the same function takes the GPU's device."""
    torchvision = pytest.importorskip("torchvision.io")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode = encoded_module.cuda_decoder(CPU)
        files = [torch.frombuffer(bytearray(jpeg(n)), dtype=torch.uint8) for n in range(2)]
        found = decode(files)
    assert torchvision is not None
    assert [tuple(image.shape) for image in found] == [(3, 144, 192)] * 2
    assert torch.equal(found[0], libjpeg(files[:1])[0])
