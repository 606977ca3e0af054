"""What goes wrong with drives: a reversed one, wrong clocks, positions that stand still or lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vladmap.simulation.camera import Poses
from vladmap.simulation.journeys import Journey
from vladmap.simulation.network import Drive

FROZEN_S = 60.0
"""How long positions stand still."""

CLOCKS_APART_S = 3600.0
"""The second camera's clock is so much ahead."""

SECOND_CAMERA_DEG = -50.0
"""The second camera of a car looks so far to the right of the first."""


def with_faults(drives: Sequence[Drive], faults: Sequence[str]) -> list[Drive]:
    """The drives of a network with the faults that simulation.names.FAULTS lists.

    backwards: the last drive has its photographs, times and names in the reverse order. frozen: of
    the first drive, FROZEN_S of positions are the one before. borrowed: the last drive has the
    positions of the first. clocks: the first car has a second camera, a drive of its own, whose
    clock is CLOCKS_APART_S ahead. twice: the last drive is there again under another name, in
    files compressed otherwise.
    """
    found = list(drives)
    if "borrowed" in faults:
        found[-1] = borrowed(found[-1], found[0])
    if "backwards" in faults:
        found[-1] = backwards(found[-1])
    if "frozen" in faults:
        found[0] = frozen(found[0])
    if "clocks" in faults:
        found.append(second_camera(drives[0]))
    if "twice" in faults:
        found.append(again(found[len(drives) - 1]))
    return found


def backwards(drive: Drive) -> Drive:
    """The photographs, with what GPS says of each, in the reverse order at the same times."""
    way = drive.journey
    order = np.arange(len(drive))[::-1]
    turned = Journey(
        Poses(way.poses.centre[order], way.poses.rotation[order]),
        way.seconds,
        way.distance,
        way.course[order],
        way.street[order],
    )
    return replace(drive, journey=turned, fixes=drive.fixes[::-1], seeds=drive.seeds[order])


def frozen(drive: Drive) -> Drive:
    """Positions stand still for FROZEN_S, or in a shorter drive for its middle third."""
    length = float(drive.seconds[-1])
    first = length / 3.0
    end = first + min(FROZEN_S, length / 3.0)
    still = np.flatnonzero((drive.seconds >= first) & (drive.seconds < end))
    last = next((fix for fix in drive.fixes[still[0] :: -1] if fix), None) if len(still) else None
    fixes = list(drive.fixes)
    for row in still.tolist():
        fixes[row] = last
    return replace(drive, fixes=fixes)


def borrowed(drive: Drive, other: Drive) -> Drive:
    """A drive that says it was where another was."""
    rows = np.minimum(np.arange(len(drive)), len(other) - 1)
    return replace(drive, fixes=[other.fixes[row] for row in rows])


def second_camera(drive: Drive) -> Drive:
    """Another camera on the same car, at the same moments, with a clock of its own."""
    angle = np.radians(SECOND_CAMERA_DEG)
    turn = np.array(
        [
            [np.cos(angle), 0.0, -np.sin(angle)],
            [0.0, 1.0, 0.0],
            [np.sin(angle), 0.0, np.cos(angle)],
        ]
    )
    way = drive.journey
    poses = Poses(way.poses.centre, turn @ way.poses.rotation)
    fixes = [
        fix and replace(fix, heading=(fix.heading + SECOND_CAMERA_DEG) % 360.0)
        for fix in drive.fixes
    ]
    return replace(
        drive,
        name=f"{drive.name}-second",
        model=f"{drive.model} second",
        journey=replace(way, poses=poses),
        fixes=fixes,
        seconds=drive.seconds + CLOCKS_APART_S,
        seeds=drive.seeds + 1,
    )


def again(drive: Drive) -> Drive:
    """The same photographs as a drive of another name, with other noise of the compression."""
    return replace(drive, name=f"{drive.name}-again", quality=80)
