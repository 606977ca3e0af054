"""`vladmap export`: a model and its photographs, for COLMAP and the tools that follow it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vladmap.console.numbers import whole
from vladmap.jobs.command import Parser, guarded, leave, parser, words
from vladmap.photos.names import JPEG_QUALITY

_EPILOG = f"""\
An atlas's models are of upright photographs. COLMAP, and what reads its models (OpenMVS,
nerfstudio, 3D Gaussian splatting, hloc), reads pixels as they are stored: of a photograph that an
EXIF orientation turns, sizes disagree and keypoints lie elsewhere. An export has

  OUTPUT/images/      the photographs: links where the stored pixels are upright already; else
                      upright copies with their EXIF, encoded anew as JPEG of quality {JPEG_QUALITY}
                      (PNG stays PNG; WebP, TIFF and the like become JPEG, and .jpg is added to
                      their names)
  OUTPUT/sparse/0/    the model with their names and their sizes, points coloured
  OUTPUT/export.json  where each file came from; the ENU origin: metres east, north, up of it

Every size is checked against the model's. A photograph that is gone, or has changed since it was
mapped, is named, and the exit code is 2; the rest of the export is whole.

examples:
  vladmap export --atlas atlas --to colmap --output out
  colmap gui --import_path out/sparse/0 --image_path out/images --database_path out/database.db
  colmap image_undistorter --image_path out/images --input_path out/sparse/0 --output_path out/dense

  vladmap export --atlas atlas --output out --copy        # files of its own, to take elsewhere
  vladmap export --atlas atlas --output out --images /new/place/of/the/collection
"""


def command_line() -> Parser:
    """What the job can be told."""
    options = parser(
        "export",
        "Write a model of an atlas with photographs that fit it pixel for pixel.",
        epilog=_EPILOG,
    )
    options.add_argument("--atlas", required=True, metavar="DIR", help="folder of the atlas")
    options.add_argument(
        "--to", default="colmap", choices=("colmap",), help="for which tools (default: colmap)"
    )
    options.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="a new folder, or an empty one"
    )
    options.add_argument(
        "--model", type=whole(0), default=0, metavar="N",
        help="which model; 0 has most photographs (default: 0)",
    )  # fmt: skip
    options.add_argument(
        "--images", default="", metavar="DIR",
        help="the collection's folder, if it has moved since it was mapped",
    )  # fmt: skip
    files = options.add_mutually_exclusive_group()
    files.add_argument(
        "--link", action="store_true",
        help="symbolic links to photographs that are upright as they are (the default; those on an "
        "object store are copied)",
    )  # fmt: skip
    files.add_argument("--copy", action="store_true", help="copies of them")
    options.add_argument(
        "--text", action="store_true", help="COLMAP's text files in place of its binary ones"
    )
    options.add_argument(
        "--max-pixels", type=whole(1), default=None, metavar="N",
        help="photographs of more are not opened (default: as in a build)",
    )  # fmt: skip
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Export one model; returns the exit code."""
    parsed = command_line().parse_args(words(argv))

    def work() -> int:
        from vladmap.jobs.exporting import export

        export(
            parsed.atlas,
            parsed.output,
            model=parsed.model,
            images=parsed.images,
            copy=parsed.copy,
            text=parsed.text,
            max_pixels=parsed.max_pixels,
            quiet=parsed.quiet,
        )
        return 0

    return guarded(work, parsed)


if __name__ == "__main__":
    leave(main)
