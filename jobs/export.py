"""`vladmap export`: what an atlas holds, in the formats of other tools."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vladmap.console.numbers import whole
from vladmap.exports.kinds import EXPORTS, ExportKind, export_kind
from vladmap.jobs.command import Parser, guarded, leave, log_options, parser, words
from vladmap.jobs.localise import asked_for
from vladmap.photos.names import JPEG_QUALITY
from vladmap.schemas.rejects import UserError

_NAMED = 3

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

  vladmap export --atlas atlas --to hloc --output out --queries drive   # docs/mapping-team.md
  vladmap export --atlas atlas --to onnx --output index   # to search without vladmap
  python index/search.py photo.jpg

  vladmap export --atlas atlas --output out --copy        # files of its own, to take elsewhere
  vladmap export --atlas atlas --output out --images /new/place/of/the/collection
"""


def command_line() -> Parser:
    """The parser of the job."""
    options = parser(
        "export",
        "Write what an atlas holds in the formats of other tools.",
        epilog=_EPILOG,
    )
    options.add_argument("--atlas", required=True, metavar="DIR", help="folder of the atlas")
    options.add_argument(
        "--to", default=EXPORTS[0].name, choices=[kind.name for kind in EXPORTS],
        help="\n".join(f"{kind.name}: {kind.title}" for kind in EXPORTS),
    )  # fmt: skip
    options.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="a new folder, or an empty one"
    )
    options.add_argument(
        "--model", type=whole(0), default=None, metavar="N",
        help="which model of the map; 0 has most photographs (default: 0)",
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
    options.add_argument(
        "--queries", default="", metavar="SOURCE",
        help="photographs from outside (a folder, a glob, a manifest), with which hloc's\n"
        "localize_sfm runs: their features, and matches with those most alike",
    )  # fmt: skip
    options.add_argument(
        "--descriptors", default=None, metavar="NAME",
        help="for onnx: which descriptor model, where the atlas has several",
    )  # fmt: skip
    return options


def settings_of(kind: ExportKind, options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an export of this kind, from the values of the job's options by name.

    Raises UserError for an option that was given and that this kind of export does not read.
    """
    optional = ("images", "link", "copy", "text", "max_pixels", "queries", "descriptors")
    given = {name: options[name] for name in optional if options[name]}
    for name in given:
        if name not in kind.options:
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag} is not for --to {kind.name}: leave it out")
    if options["model"] is not None and not kind.of_map:
        raise UserError(f"--model is not for --to {kind.name}: leave it out")
    given.pop("link", None)
    if "queries" in given:
        given["queries"] = asked_for(given["queries"])
    return {"output": options["output"], "model": options["model"] or 0, **given}


def export(atlas_folder: str, kind: ExportKind, settings: dict[str, Any], *, quiet: bool) -> None:
    """Write an export and say what is in it.

    Raises UserError where nothing can be exported, and where photographs could not be.
    """
    from tqdm import tqdm

    from vladmap.atlas.store import AtlasStore
    from vladmap.exports.base import Settings
    from vladmap.schemas.rejects import RejectReason

    atlas = AtlasStore.open(atlas_folder, create=False)
    wanted, exporter = Settings(**settings, threads=os.cpu_count() or 1), kind.load()
    disable = True if quiet else None
    total = exporter.count(atlas, wanted)
    with tqdm(total=total, desc="export", unit=" photographs", disable=disable) as bar:
        outcome = exporter.export(atlas, wanted, bar.update)
    print("\n".join(outcome.lines), flush=True)
    if missing := outcome.missing:
        named = "; ".join(f"{name} ({why})" for name, why in missing[:_NAMED])
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        gone = any(why.startswith(RejectReason.MISSING.value) for _, why in missing)
        hint = "; if the collection has moved, say where with --images DIR" if gone else ""
        raise UserError(
            f"export: {len(missing)} of {outcome.total} photographs are not in "
            f"{wanted.output}: {named}{more}{hint}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Write one export; returns the exit code."""
    parsed = command_line().parse_args(words(argv))

    def work() -> int:
        kind = export_kind(parsed.to)
        export(parsed.atlas, kind, settings_of(kind, vars(parsed)), quiet=parsed.quiet)
        return 0

    return guarded(work, log_options(parsed))


if __name__ == "__main__":
    leave(main)
