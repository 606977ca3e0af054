"""`vladmap search`: the photographs of an atlas that are most alike to others."""

from __future__ import annotations

import json
from collections.abc import Sequence

from vladmap.console.numbers import whole
from vladmap.jobs.command import Parser, guarded, leave, log_options, parser, words
from vladmap.jobs.localise import asked_for
from vladmap.weights.devices import CPU, DEVICES

_EPILOG = """\
Each photograph is described by the atlas's own model and searched for in places.faiss, whose
descriptors are averaged over neighbours in space. Alike is not the same place: `vladmap localise`
checks by local features, and says where it cannot tell.

examples:
  vladmap search --atlas atlas --images photo.jpg
  vladmap search --atlas atlas --images drive --k 10 --json
"""


def command_line() -> Parser:
    """The parser of the job."""
    options = parser(
        "search",
        "Find the photographs of an atlas that are most alike.",
        epilog=_EPILOG,
        json_help="print a JSON object for each photograph found, a line each",
    )
    options.add_argument("--atlas", required=True, metavar="DIR", help="folder of the atlas")
    options.add_argument(
        "--images", required=True, metavar="SOURCE",
        help="a photograph, a folder, a glob or a manifest",
    )  # fmt: skip
    options.add_argument(
        "--k", type=whole(1, 10_000), default=5, metavar="N", help="found of each (default: 5)"
    )
    options.add_argument("--model", help="the descriptors, where the atlas has several")
    options.add_argument("--device", choices=DEVICES, default=CPU, help=f"(default: {CPU})")
    return options


def search(atlas: str, images: str, k: int, model: str | None, device: str, as_json: bool) -> None:
    """Print what is most alike to each photograph; one that cannot be read is said so."""
    from vladmap.atlas.atlas import Atlas
    from vladmap.atlas.errors import MissingPhotograph

    opened = Atlas(atlas)
    index = opened.index(model, places=True)
    known = opened.images(["image_id", "name", "latitude", "longitude"]).set_index("image_id")
    for each in asked_for(images):
        name = each.name
        try:
            found = index.search(opened.describe([each.uri], index.model, device=device), k)
        except MissingPhotograph as error:
            told = json.dumps({"query": name, "error": str(error)}) if as_json else str(error)
            print(told, flush=True)
            continue
        if not as_json:
            print(f"{name}:")
        for hit in found.to_dict("records"):
            place = known.loc[hit["image_id"]].to_dict()
            if as_json:
                facts = {key: None if value != value else value for key, value in place.items()}
                print(json.dumps({**hit, "query": name, **facts}), flush=True)
            else:
                at = f"{place['latitude']:.6f},{place['longitude']:.6f}"
                where = "no GPS" if "nan" in at else at
                print(f"  {hit['similarity']:.3f}  {where}  {place['name']}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Search for photographs; returns the exit code."""
    parsed = command_line().parse_args(words(argv))

    def work() -> int:
        search(
            parsed.atlas, parsed.images, parsed.k, parsed.model, parsed.device, parsed.json
        )  # fmt: skip
        return 0

    return guarded(work, log_options(parsed))


if __name__ == "__main__":
    leave(main)
