"""`vladmap localise`: where photographs were taken, by an atlas."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vladmap.console.numbers import real, whole
from vladmap.features.names import MATCHER_NAMES, NEAREST
from vladmap.jobs.command import Parser, guarded, leave, log_options, parser, words
from vladmap.localisation.settings import LocaliseSettings
from vladmap.schemas.rejects import UserError
from vladmap.weights.devices import CPU, DEVICES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vladmap.atlas.atlas import Atlas
    from vladmap.localisation.preparing import Asked, Prepared
    from vladmap.reporting.localised_page import Shown

_EPILOG = """\
A photograph is compared with those of the atlas that are most alike (within --reach-m of its GPS,
where it has one), its keypoints are matched with theirs, and its pose follows from the points of
the map that they show. Each photograph has one of three answers:

  pose      where the camera was, and how it was turned
  place     which photograph of the atlas shows the same place, and no more
  unknown   neither can be told right from wrong; the reason is said

A pose that another place explains nearly as well, or that explains only a part of the picture, is
not told. The focal length is that of the atlas's camera of the same kind, else EXIF's, else it is
estimated.

Without --output each photograph is a line. With it, OUTPUT/localisations/ is a GeoParquet table, a
row a photograph (columns: docs/atlas.md), made by Beam: options of its runners work as in
`vladmap build`, and the same command again does only what is new.

examples:
  vladmap localise --atlas atlas --images photo.jpg
  vladmap localise --atlas atlas --images drive --page found.html
  vladmap localise --atlas atlas --images drive --json
  vladmap localise --atlas atlas --images gs://bucket/drive --output found
  vladmap localise --atlas atlas --images city/queries --truth city/*.parquet
"""

MOST_SHOWN = 50
"""Photographs on a page; their pictures are in it."""
_PICTURE_PX = 480


def command_line() -> Parser:
    """The parser of the job."""
    known = LocaliseSettings()
    options = parser(
        "localise",
        "Find where photographs were taken, by an atlas.",
        epilog=_EPILOG,
        json_help="print the rows, or with --output the counts, as JSON",
    )
    options.add_argument("--atlas", required=True, metavar="DIR", help="folder of the atlas")
    options.add_argument(
        "--images", required=True, metavar="SOURCE",
        help="a photograph, a folder, a glob or a manifest",
    )  # fmt: skip
    options.add_argument("--output", metavar="DIR", help="folder for the table, made if need be")
    options.add_argument(
        "--page", metavar="FILE.html",
        help=f"without --output: write a page with the pictures of the first {MOST_SHOWN}",
    )  # fmt: skip
    options.add_argument(
        "--reach-m", type=real(0, 1e7), default=known.reach_m, metavar="M",
        help=f"how far from its GPS one may be; 0: ignore GPS (default: {known.reach_m:g})",
    )  # fmt: skip
    options.add_argument(
        "--candidates", type=whole(1, 1000), default=known.candidates, metavar="N",
        help=f"photographs of the atlas to match with (default: {known.candidates})",
    )  # fmt: skip
    options.add_argument("--model", help="the descriptors, where the atlas has several")
    options.add_argument("--features", help="the local features, where the atlas has several")
    options.add_argument(
        "--matcher", choices=MATCHER_NAMES, default=NEAREST, help=f"(default: {NEAREST})"
    )
    options.add_argument(
        "--truth", metavar="FILE", nargs="+",
        help="print how far poses are from these Parquet tables, as `vladmap sample` writes them",
    )  # fmt: skip
    options.add_argument("--device", choices=DEVICES, default=CPU, help=f"(default: {CPU})")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Localise photographs; returns the exit code."""
    options = command_line()
    parsed, left = options.parse_known_args(words(argv))
    if left and not parsed.output:
        options.parse_args(words(argv))  # says what is wrong with them

    def work() -> int:
        if parsed.page and parsed.output:
            raise UserError("--page shows photographs as they are placed: leave out --output")
        settings = LocaliseSettings(parsed.reach_m, parsed.candidates)
        if parsed.output:
            _into_table(parsed, settings, left)
        else:
            _lines(parsed, settings)
        return 0

    return guarded(work, log_options(parsed))


def _into_table(parsed: Any, settings: LocaliseSettings, beam_words: Sequence[str]) -> None:
    import pyarrow.parquet as pq

    from vladmap.atlas.atlas import Atlas
    from vladmap.atlas.layout import LOCALISATIONS
    from vladmap.pipeline.beam_words import checked as of_beam
    from vladmap.pipeline.localise import localise
    from vladmap.transforms.localise import Against

    index = Atlas(parsed.atlas).index(parsed.model)
    against = Against(
        os.path.abspath(parsed.atlas) if "://" not in parsed.atlas else parsed.atlas,
        index.model, parsed.features, parsed.matcher, parsed.device, settings,
    )  # fmt: skip
    counts = localise(
        parsed.images, against, parsed.output, of_beam(beam_words, command_line().flags())
    )
    place = os.path.join(parsed.output, LOCALISATIONS)
    checked = _checked(parsed, pq.read_table(place)) if parsed.truth else None
    if parsed.json:
        print(json.dumps({**counts, **({"truth": checked} if checked else {})}), flush=True)
        return
    print(_summary(counts))
    _tell(checked)
    print(place)


def _lines(parsed: Any, settings: LocaliseSettings) -> None:
    from vladmap.atlas.atlas import Atlas
    from vladmap.localisation.check import format_localised
    from vladmap.localisation.localiser import Localiser
    from vladmap.localisation.table import localisations_table
    from vladmap.reporting.localised_page import write_localised

    asked = asked_for(parsed.images)
    localiser = Localiser(
        Atlas(parsed.atlas), model=parsed.model, features=parsed.features, matcher=parsed.matcher,
        settings=settings, device=parsed.device,
    )  # fmt: skip
    rows: list[dict[str, Any]] = []
    shown: list[Shown] = []
    for each in asked:
        prepared = localiser.prepare(each)
        row, lines = localiser.answer(prepared)
        rows.append(row)
        if parsed.page and len(shown) < MOST_SHOWN:
            shown.append(_shown(localiser.atlas, prepared, row, lines))
        if parsed.json:
            print(json.dumps({name: each for name, each in rows[-1].items() if each is not None}))
        else:
            print(line_of(rows[-1]), flush=True)
    told = [_summary(Counter(row["status"] for row in rows))] if len(asked) > 1 else []
    if parsed.truth:
        checked = _checked(parsed, localisations_table(rows))
        told += format_localised(checked)
        if parsed.json:
            print(json.dumps({"truth": checked}))
    if not parsed.json:
        for line in told:
            print(line)
    if parsed.page:
        write_localised(Path(parsed.page), parsed.atlas, told, shown)
        if not parsed.json:
            print(parsed.page)


def _shown(
    atlas: Atlas, prepared: Prepared, row: dict[str, Any], lines: NDArray[np.float64]
) -> Shown:
    """A photograph for the page, with its picture and that of its place."""
    from vladmap.atlas.errors import AtlasError
    from vladmap.reporting.localised_page import Shown

    place = None
    if row["place"] is not None:
        with contextlib.suppress(AtlasError):  # it has moved, or is gone: shown without
            place = atlas.photograph(row["place"], long_side=_PICTURE_PX)
    told = line_of(row).partition(": ")[2]
    return Shown(row["name"], row["status"], told, prepared.pixels, row["place_name"], place, lines)


def asked_for(source: str) -> tuple[Asked, ...]:
    """The photographs of a file, a folder, a glob or a manifest."""
    from vladmap.localisation.preparing import Asked
    from vladmap.photos.manifests.columns import is_manifest_name
    from vladmap.pipeline.collection import list_collection

    if os.path.isfile(source) and not is_manifest_name(source):
        return (Asked(os.path.basename(source), source),)
    return tuple(
        Asked(each["path"], each["uri"], each["overrides"], each["kind"])
        for each in list_collection(source).table.to_pylist()
    )


def _checked(parsed: Any, localised: Any) -> dict[str, Any]:
    """How far localisations are from the truth that the user names."""
    import pyarrow as pa

    from vladmap.atlas import storage
    from vladmap.atlas.atlas import Atlas
    from vladmap.localisation.check import check_localised

    columns = ["uri", "model", "latitude", "longitude", "altitude", "qw", "qx", "qy", "qz"]
    poses = Atlas(parsed.atlas).poses(columns)
    try:
        truth = pa.concat_tables(map(storage.read_table, parsed.truth), promote_options="default")
    except (OSError, ValueError) as error:
        raise UserError(f"--truth {' '.join(parsed.truth)}: {error}") from error
    return check_localised(localised, pa.Table.from_pandas(poses, preserve_index=False), truth)


def _tell(checked: dict[str, Any] | None) -> None:
    if checked:
        from vladmap.localisation.check import format_localised

        print(*format_localised(checked), sep="\n")


def line_of(row: dict[str, Any]) -> str:
    """What is told of a photograph, in a line for people."""
    if row["status"] == "pose" and row["latitude"] is not None:
        heading = "" if row["heading_deg"] is None else f", looks to {row['heading_deg']:.0f} deg"
        told = (
            f"pose     {row['latitude']:.7f},{row['longitude']:.7f} +- {row['sigma_m']:.3f} m"
            f"{heading}, {row['inliers']} inliers, beside {row['place_name']}"
        )
    elif row["status"] == "pose":
        told = f"pose     in model {row['map_model']}, which has no place on earth"
    elif row["status"] == "place":
        told = f"place    that of {row['place_name']} ({row['place_inliers']} inliers); no pose: "
        told += row["detail"]
    else:
        told = f"unknown  {row['detail']}"
    return f"{row['name']}: {told}"


def _summary(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    return f"{total:,} photographs: " + ", ".join(
        f"{counts.get(status, 0):,} {status}" for status in ("pose", "place", "unknown")
    )


if __name__ == "__main__":
    leave(main)
