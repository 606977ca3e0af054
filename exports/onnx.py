"""Exports the index and the network that describes photographs for it, to be searched elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vladmap.atlas.atlas import Atlas
from vladmap.atlas.store import AtlasStore
from vladmap.exports.base import Exporter, Outcome, Settings, new_folder
from vladmap.models.base import ModelSpec
from vladmap.models.kinds import CPU_ALONE, KINDS
from vladmap.schemas.rejects import UserError
from vladmap.weights.preprocessing import FixedSize, InputSize, Size

MODEL, SEARCH, README = "model.onnx", "search.py", "README.md"

_ALLOWED = 1e-4
"""The largest difference of a number of a unit vector between onnxruntime and vladmap."""

_SEARCH = '''\
"""Where was a photograph taken? Prints the most alike: python search.py PHOTOGRAPH ...

Needs faiss, numpy, onnxruntime, pillow, pyarrow.
"""

import sys
from pathlib import Path

import faiss
import numpy as np
import onnxruntime
import pyarrow.parquet as pq
from PIL import Image, ImageOps

here = Path(__file__).resolve().parent
network = onnxruntime.InferenceSession(
    str(here / "model.onnx"), providers=["CPUExecutionProvider"]
)
index = faiss.read_index(str(here / "places.faiss")){visited}
ids = pq.read_table(here / "ids.parquet")["image_id"].to_pylist()
for path in sys.argv[1:]:
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    {size}
    smooth = Image.Resampling.HAMMING if size[0] > image.width else Image.Resampling.BILINEAR
    pixels = np.asarray(image.resize(size, smooth))[None]
    (vector,) = network.run(None, {{"pixels": pixels}})
    for cosine, row in zip(*(found[0] for found in index.search(vector, 5))):
        print(path, ids[row], f"{{cosine:.4f}}")
'''

_README = """\
# The index of an atlas, to search without vladmap

- `model.onnx`: the network `{name}`. Its input `pixels` is (N, H, W, 3) uint8, upright RGB,
  {sizes}; its output `descriptor` is (N, {dimension}) float32, rows of unit length.
  Normalisation is inside. ONNX opset {opset}.
- `places.faiss`: an index in FAISS's format for photographs from outside, of another day or
  season; `global.faiss` has the photographs' own descriptors. Inner product: scores are cosines.
- `ids.parquet`: the `image_id` of each row of both. The atlas's `poses.parquet` and `images/` say
  where each was taken.
- `index.json`: what is known of the index. Its `model_fingerprint`,
  {fingerprint}, is in `model.onnx`, too: descriptors of another must
  not be searched for here.
- `search.py`: describes photographs and prints the five most alike of each.

{rule}
A photograph is turned upright by its EXIF orientation first. It is reduced by Pillow's `BILINEAR`
and enlarged by its `HAMMING`. vladmap lays what is transparent on white.

The network was run in onnxruntime {runtime} on pictures of several sizes when it was written: no
number of a descriptor differed from vladmap's by more than {allowed:.0e}.
"""


class OnnxExporter(Exporter):
    """`model.onnx`, the index of its descriptors, and a program of a page that searches it."""

    def count(self, atlas: AtlasStore, settings: Settings) -> int:
        """No photographs."""
        return 0

    def export(
        self,
        atlas: AtlasStore,
        settings: Settings,
        progress: Callable[[], object] = lambda: None,
    ) -> Outcome:
        """See Exporter.export. The network is compared with vladmap's before anything is written.

        Raises UserError for a descriptor model that is no network, or whose graph computes
        something else.
        """
        from vladmap.models import onnx_graph

        reader = Atlas(atlas.root)
        index = reader.index(settings.descriptors)
        if index.model in CPU_ALONE:
            raise UserError(
                f"the descriptors {index.model} are computed by no network, so that there is "
                f"nothing to write as ONNX: build the atlas with one of {', '.join(KINDS)}"
            )
        onnx_graph.packages()
        files = index.committed()
        with new_folder(settings.output) as output:
            model = reader.model(index.model)
            data = onnx_graph.to_onnx(model)
            difference = onnx_graph.largest_difference(model, data)
            if not difference <= _ALLOWED:
                raise UserError(
                    f"{index.model} in ONNX differs from vladmap's by {difference:.1e}, more than "
                    f"{_ALLOWED:.0e}: nothing is written. This torch and this onnxruntime do not "
                    "agree; take the versions that `vladmap[onnx]` asks for"
                )
            for path in files:
                shutil.copyfile(path, output / Path(path).name)
            (output / MODEL).write_bytes(data)
            (output / SEARCH).write_text(search_program(model.spec, index.faiss), encoding="utf-8")
            text = _readme(model.spec, onnx_graph)
            (output / README).write_text(text, encoding="utf-8")
        return Outcome(
            (
                f"{index.model} as {settings.output / MODEL}, {len(data) / 1e6:.1f} MB: "
                f"{model.spec.dimension} numbers, at most {difference:.1e} from vladmap's",
                f"the index of {len(index)} photographs, and {settings.output / SEARCH}",
            ),
            0,
        )


EXPORTER = OnnxExporter()


def search_program(spec: ModelSpec, index: Any) -> str:
    """The text of search.py, for a model and a FAISS index."""
    from vladmap.retrieval.faiss_index import innermost, visited_lists

    inner: Any = innermost(index)
    visited = ""
    if hasattr(inner, "nprobe"):
        visited = f"\nfaiss.extract_index_ivf(index).nprobe = {visited_lists(inner)}"
    return _SEARCH.format(size=_size_line(spec.input_size), visited=visited)


def _size_line(size: Size) -> str:
    """How Pillow's `image` tells the size that it is brought to."""
    if isinstance(size, FixedSize):
        return f"size = ({size.width}, {size.height})"
    if isinstance(size, InputSize):
        return (
            "long_side = max(image.size)\n"
            f"    wanted = min(max(long_side, {size.smallest}), {size.largest})\n"
            "    size = [\n"
            "        wanted if side == long_side else max(1, round(side * wanted / long_side))\n"
            "        for side in image.size\n"
            "    ]"
        )
    return (
        f"scale = min(1.0, {size.longest} / max(image.size))\n"
        f"    size = [max({size.shortest}, round(side * scale)) for side in image.size]"
    )


def _readme(spec: ModelSpec, onnx_graph: Any) -> str:
    size = spec.input_size
    if isinstance(size, FixedSize):
        sizes = f"{size.height} rows of {size.width} pixels"
        rule = f"Images are brought to {size.width} x {size.height} pixels, whatever their shape."
    elif isinstance(size, InputSize):
        sizes = "of any size"
        rule = (
            f"The long side of images is brought to {size.smallest} pixels if it is smaller, to "
            f"{size.largest} if it is larger; the short side follows, rounded."
        )
    else:
        sizes = "of any size"
        rule = (
            f"Images are reduced to a long side of {size.longest} pixels if theirs is larger; a "
            f"side below {size.shortest} is enlarged to that."
        )
    _, runtime = onnx_graph.packages()
    return _README.format(
        name=spec.name,
        sizes=sizes,
        rule=rule,
        dimension=spec.dimension,
        opset=onnx_graph.OPSET,
        fingerprint=spec.fingerprint,
        runtime=runtime.__version__,
        allowed=_ALLOWED,
    )
