"""JPEG files that a device decodes itself: nvJPEG on a GPU, by torchvision.

The pixels differ from libjpeg's by a third of a grey level on average; docs/performance.md says how
far descriptors move.
"""

from __future__ import annotations

import contextlib
import functools
import math
import warnings
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vladmap.photos.decoding.decode import decode_rgb
from vladmap.photos.decoding.encoded import Encoded
from vladmap.schemas.rejects import PhotoError, UserError

JpegDecoder = Callable[[list[Tensor]], list[Tensor]]
"""Files (n,) uint8 on the CPU -> (3, H, W) uint8 RGB on the device, in stored orientation.

Raises RuntimeError where one of them cannot be decoded.
"""

_NUMBERS_AT_ONCE = 1 << 28

_UPRIGHT: dict[int, Callable[[Tensor], Tensor]] = {
    2: lambda images: images.flip(3),
    3: lambda images: images.flip(2, 3),
    4: lambda images: images.flip(2),
    5: lambda images: images.transpose(2, 3),
    6: lambda images: images.rot90(-1, (2, 3)),
    7: lambda images: images.flip(2, 3).transpose(2, 3),
    8: lambda images: images.rot90(1, (2, 3)),
}


def cuda_decoder(device: torch.device) -> JpegDecoder:
    """nvJPEG. Raises UserError where torchvision is not there or was built without it."""
    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except (ImportError, RuntimeError) as error:
        raise UserError(
            "decoding on the GPU needs torchvision: pip install 'vladmap[gpu]', or --decode cpu"
        ) from error
    # It is to move to torchcodec; the version that is pinned has it.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="torchvision.io")

    def decode(files: list[Tensor]) -> list[Tensor]:
        if device.type == "cpu":
            return list(decode_jpeg(files, ImageReadMode.RGB, device))
        # torchvision decodes on a stream of its own, into memory of ours that does not wait for it:
        # what still reads there (the resizing of the images before) must have ended.
        torch.cuda.current_stream(device).synchronize()
        try:
            return list(decode_jpeg(files, ImageReadMode.RGB, device))
        except RuntimeError:
            torch.cuda.synchronize(device)  # others of these files may still be on their way there
            raise

    return decode


class DecodedStack(NamedTuple):
    """(B, H, W, 3) uint8 upright images on the device; `errors` says why some places are black.

    The CPU decoded `on_cpu` of them after all.
    """

    images: Tensor
    errors: dict[int, PhotoError]
    on_cpu: int


def decoded_stack(
    pictures: Sequence[Encoded], size: tuple[int, int], decoder: JpegDecoder, device: torch.device
) -> DecodedStack:
    """Pictures decoded by the device, at `size` (H, W).

    What the device does not decode (it knows fewer kinds of JPEG) the CPU does. A picture that
    neither can decode costs itself alone. As many are decoded together as memory holds.
    """
    stack = torch.zeros(len(pictures), *size, 3, dtype=torch.uint8, device=device)
    errors: dict[int, PhotoError] = {}
    on_cpu = 0
    parts = deque(_parts(pictures))
    while parts:
        part = parts.popleft()
        left: list[int] | None = None
        with contextlib.suppress(torch.OutOfMemoryError):
            left = _decode_into(stack, pictures, part, decoder)
        if left is None:
            torch.cuda.empty_cache()  # here, where the error no longer holds what it was decoding
            if len(part) > 1:
                middle = len(part) // 2
                parts.extendleft((part[middle:], part[:middle]))
                continue
            left = part
        on_cpu += len(left)
        for place in left:
            try:
                stack[place] = decoded_by_cpu(pictures[place], size).to(device)
            except PhotoError as error:
                errors[place] = error
    return DecodedStack(stack, errors, on_cpu)


def decoded_by_cpu(picture: Encoded, size: tuple[int, int]) -> Tensor:
    """(H, W, 3) uint8, upright, at `size` (H, W). Raises PhotoError."""
    pixels = decode_rgb(
        bytes(picture.data), max_pixels=picture.max_pixels, target=lambda *_: (size[1], size[0])
    )
    return torch.from_numpy(pixels)


def _decode_into(
    stack: Tensor, pictures: Sequence[Encoded], part: Sequence[int], decoder: JpegDecoder
) -> list[int]:
    """Decode and resize the pictures at some places; the places that the device cannot decode."""
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    images = dict(zip(part, _decoded([pictures[k] for k in part], decoder), strict=True))
    for place, image in images.items():
        if image is not None:
            alike[pictures[place].orientation, *image.shape].append(place)
    size = (stack.shape[1], stack.shape[2])
    for (orientation, *_), places in alike.items():
        wanted = size[::-1] if orientation >= 5 else size
        group = resized(torch.stack([_known(images[k]) for k in places]), wanted)
        if orientation in _UPRIGHT:
            group = _UPRIGHT[orientation](group)
        stack[torch.tensor(places, device=stack.device)] = group.permute(0, 2, 3, 1)
    return [place for place, image in images.items() if image is None]


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, 3, h, w) uint8 -> (N, 3, H, W) uint8 by the filters of `photos.decoding`.

    Reduced by an antialiased bilinear filter, enlarged by a Hamming window, rounded to whole grey
    levels: at most one off what Pillow makes of the same pixels.
    """
    if images.shape[2:] == size:
        return images
    if size[1] > images.shape[3]:
        across = _hamming(images.shape[3], size[1]).to(images.device)
        down = _hamming(images.shape[2], size[0]).to(images.device)
        # Pillow rounds between the two passes.
        return _rounded(down @ _rounded(images.float() @ across.T).float())
    found = functional.interpolate(images.float(), size, mode="bilinear", antialias=True)
    return _rounded(found)


def _rounded(values: Tensor) -> Tensor:
    return values.add(0.5).floor_().clamp_(0, 255).to(torch.uint8)


@functools.cache
def _hamming(length: int, wanted: int) -> Tensor:
    """(wanted, length) weights of a Hamming window as wide as one pixel of the coarser grid."""
    step = length / wanted
    support = max(step, 1.0)
    centres = (np.arange(wanted)[:, None] + 0.5) * step
    x = np.abs((np.arange(length) + 0.5 - centres) / support)
    weights = np.where(x < 1, np.sinc(x) * (0.54 + 0.46 * np.cos(math.pi * x)), 0.0)
    return torch.from_numpy((weights / weights.sum(1, keepdims=True)).astype(np.float32))


def _parts(pictures: Sequence[Encoded]) -> Iterator[list[int]]:
    """Places of pictures that may be in the device's memory together, in full size."""
    part: list[int] = []
    numbers = 0
    for place, picture in enumerate(pictures):
        own = 3 * picture.size[0] * picture.size[1]
        if part and numbers + own > _NUMBERS_AT_ONCE:
            yield part
            part, numbers = [], 0
        part.append(place)
        numbers += own
    if part:
        yield part


def _decoded(pictures: Sequence[Encoded], decoder: JpegDecoder) -> list[Tensor | None]:
    """Each picture in its stored orientation, None where the device cannot decode it."""
    files = [torch.from_numpy(picture.owned().data) for picture in pictures]
    wanted = [(3, *picture.size[::-1]) for picture in pictures]
    return [
        image if image is not None and tuple(image.shape) == shape else None
        for image, shape in zip(_halved(files, decoder), wanted, strict=True)
    ]


def _halved(files: list[Tensor], decoder: JpegDecoder) -> list[Tensor | None]:
    """What the decoder makes of each file, None where it refuses.

    It takes all of them or none: what it refuses is halved until the files that it does not take
    are alone. One among n costs 2 log2(n) further calls.
    """
    try:
        return [*decoder(files)]
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if "out of memory" in str(error):  # torchvision gives all errors the same type
            raise torch.OutOfMemoryError(str(error)) from error
        if len(files) == 1:
            return [None]
        middle = len(files) // 2
        return _halved(files[:middle], decoder) + _halved(files[middle:], decoder)


def _known(image: Tensor | None) -> Tensor:
    assert image is not None
    return image
