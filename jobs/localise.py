"""`vladmap localise`: where photographs were taken, by an atlas."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from vladmap.console.numbers import real, whole
from vladmap.features.names import MATCHER_NAMES, NEAREST
from vladmap.jobs.command import Parser, guarded, leave, log_options, parser, words
from vladmap.localisation.settings import LocaliseSettings
from vladmap.weights.devices import CPU, DEVICES

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
  vladmap localise --atlas atlas --images drive --json
  vladmap localise --atlas atlas --images gs://bucket/drive --output found
"""


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
    options.add_argument("--device", choices=DEVICES, default=CPU, help=f"(default: {CPU})")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Localise photographs; returns the exit code."""
    options = command_line()
    parsed, left = options.parse_known_args(words(argv))
    if left and not parsed.output:
        options.parse_args(words(argv))  # says what is wrong with them

    def work() -> int:
        settings = LocaliseSettings(parsed.reach_m, parsed.candidates)
        if parsed.output:
            _into_table(parsed, settings, left)
        else:
            _lines(parsed, settings)
        return 0

    return guarded(work, log_options(parsed))


def _into_table(parsed: Any, settings: LocaliseSettings, beam_words: Sequence[str]) -> None:
    from vladmap.atlas.atlas import Atlas
    from vladmap.pipeline.beam_words import checked
    from vladmap.pipeline.localise import localise
    from vladmap.transforms.localise import Against

    index = Atlas(parsed.atlas).index(parsed.model)
    against = Against(
        os.path.abspath(parsed.atlas) if "://" not in parsed.atlas else parsed.atlas,
        index.model, parsed.features, parsed.matcher, parsed.device, settings,
    )  # fmt: skip
    counts = localise(
        parsed.images, against, parsed.output, checked(beam_words, command_line().flags())
    )
    if parsed.json:
        print(json.dumps(dict(counts)), flush=True)
    else:
        print(_summary(counts))
        print(os.path.join(parsed.output, "localisations"))


def _lines(parsed: Any, settings: LocaliseSettings) -> None:
    from vladmap.localisation.localiser import Asked, opened
    from vladmap.photos.manifests.columns import is_manifest_name
    from vladmap.pipeline.collection import list_collection

    if os.path.isfile(parsed.images) and not is_manifest_name(parsed.images):
        asked = [Asked(os.path.basename(parsed.images), parsed.images)]
    else:
        listed = list_collection(parsed.images).table.to_pylist()
        asked = [Asked(each["path"], each["uri"], each["overrides"]) for each in listed]
    localiser = opened(
        parsed.atlas, model=parsed.model, features=parsed.features, matcher=parsed.matcher,
        settings=settings, device=parsed.device,
    )  # fmt: skip
    counts: dict[str, int] = {}
    for each in asked:
        (row,) = localiser.locate_all([each])
        counts[row["status"]] = counts.get(row["status"], 0) + 1
        if parsed.json:
            print(json.dumps({name: value for name, value in row.items() if value is not None}))
        else:
            print(line_of(row), flush=True)
    if len(asked) > 1 and not parsed.json:
        print(_summary(counts))


def line_of(row: dict[str, Any]) -> str:
    """What is told of a photograph, in a line for people."""
    if row["status"] == "pose" and row["latitude"] is not None:
        heading = "" if row["heading_deg"] is None else f", looks to {row['heading_deg']:.0f} deg"
        told = (
            f"pose     {row['latitude']:.7f},{row['longitude']:.7f} +- {row['sigma_m']:.2f} m"
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


def _summary(counts: Any) -> str:
    total = sum(counts.values())
    return f"{total:,} photographs: " + ", ".join(
        f"{counts.get(status, 0):,} {status}" for status in ("pose", "place", "unknown")
    )


if __name__ == "__main__":
    leave(main)
