"""The patient of the phantom: a frontal chest as layers of X-ray density, and lesions in it.

Densities add along a ray, so a radiograph before exposure is a sum of layers. Every layer is a
function of chest coordinates (u, v). Coordinate u runs from -1 to 1 across the chest, patient's
left positive (the image's right). Coordinate v runs from -1 at the neck to 1 at the belly. A pose
maps pixels to chest coordinates, so nothing is ever resampled.

Arrays are (rows, columns) float32 unless said otherwise. "Softness" is the width of an edge in chest units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.floating]
Label = int
OPACITY, NODULE, EFFUSION, CARDIOMEGALY = range(4)

_REACH, _CELLS = 1.6, 2048
_AXIS = ((np.arange(_CELLS) + 0.5) / _CELLS * 2 - 1) * _REACH
VISIBLE = 0.4
"""A lesion's box bounds where it has at least this share of its full density."""
SLIVER = 0.06
"""... in rows and columns that hold more than this share of what the fullest one holds."""


@dataclass(frozen=True, slots=True)
class Pose:
    """Where the patient stands in the image: pixel position in -1..1 -> chest coordinates, and how deep the breath is.

    Attributes:
        shift: (right, down) of the chest's origin, in half sides of the image.
        scale: size of the chest in the image.
        angle: turn of the patient, radians.
        breath: depth by which the diaphragm moves down, chest units.
        stretch: factor on widths, one over that on heights: images that are not square are squashed into packs.
    """

    shift: tuple[float, float]
    scale: float
    angle: float
    breath: float
    stretch: float = 1.0

    def chest(self, size: int, rows: slice, columns: slice) -> tuple[Field, Field]:
        """(u, v) at the centres of the pixels of a window of a ``size`` x ``size`` image."""
        centres = ((np.arange(size) + 0.5) / size * 2 - 1).astype(np.float32)
        x, y = (
            (centres[columns] - np.float32(self.shift[0])) / np.float32(self.stretch),
            (centres[rows, None] - np.float32(self.shift[1])) * np.float32(self.stretch),
        )
        c, s = (
            np.float32(np.cos(self.angle) / self.scale),
            np.float32(np.sin(self.angle) / self.scale),
        )
        return c * x + s * y, c * y - s * x

    def box(self, size: int, centre: tuple[float, float], radius: float) -> tuple[slice, slice]:
        """The window of pixels (rows, columns) around a chest point, ``radius`` chest units each way."""
        c, s = np.cos(self.angle) * self.scale, np.sin(self.angle) * self.scale
        x, y = (
            (c * centre[0] - s * centre[1]) * self.stretch + self.shift[0],
            (s * centre[0] + c * centre[1]) / self.stretch + self.shift[1],
        )
        across, down = radius * self.scale * self.stretch, radius * self.scale / self.stretch
        edges = [(value / 2 + 0.5) * size for value in (y - down, y + down, x - across, x + across)]
        low, high = np.clip(np.floor(edges[::2]), 0, size), np.clip(np.ceil(edges[1::2]), 0, size)
        return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))


@dataclass(frozen=True, slots=True)
class Lesion:
    """One lesion in chest coordinates.

    Attributes:
        label: OPACITY, NODULE, EFFUSION or CARDIOMEGALY.
        centre: (u, v); of an effusion (side, level) with side -1 or 1.
        radii: along and across; of an effusion (depth of the meniscus, 0); of an enlarged heart (factor, 0).
        angle: angle of the first radius, radians.
        density: density that it adds, in units of the body's density.
        lobes: amplitudes and phases of its outline's waves, (2, 3).
    """

    label: Label
    centre: tuple[float, float]
    radii: tuple[float, float]
    angle: float
    density: float
    lobes: tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Chest:
    """One patient's stable anatomy. Lengths in chest units; pairs are (patient's right, patient's left)."""

    lung_top: float
    lung_width: tuple[float, float]
    diaphragm: tuple[float, float]
    medial: float
    body_width: float
    heart: tuple[float, float, float, float, float]  # u, v, radii, angle
    rib_phase: float
    rib_gap: float
    rib_slope: float
    rib_density: float
    clavicle: tuple[float, float]
    knob: float
    breast: float
    stomach: float
    muscle: Field  # (10, 10) slow differences of thickness
    vessels: Field  # (2, 1024) brightness by angle round each hilum
    grain: Field  # (40, 40) fine lung texture


def draw_chest(rng: np.random.Generator) -> Chest:
    """A patient."""
    width, dome = rng.normal(0.74, 0.05), rng.normal(0.47, 0.06)
    angles = np.arange(1024) / 1024 * 2 * np.pi
    vessels = np.zeros((2, 1024))
    for side in range(2):
        for _ in range(22):
            sharp = rng.uniform(80, 900)
            vessels[side] += rng.uniform(0.4, 1.0) * np.exp(
                sharp * (np.cos(angles - rng.uniform(0, 2 * np.pi)) - 1)
            )
    return Chest(
        lung_top=rng.normal(-0.80, 0.05),
        lung_width=(width + rng.normal(0, 0.025), width + rng.normal(0, 0.025)),
        diaphragm=(dome, dome + rng.normal(0.05, 0.04)),
        medial=rng.normal(0.12, 0.012),
        body_width=width + rng.uniform(0.12, 0.5),
        heart=(
            rng.normal(0.12, 0.02),
            dome - rng.normal(0.13, 0.02),
            rng.normal(0.285, 0.024),
            rng.normal(0.215, 0.018),
            rng.normal(0.6, 0.1),
        ),
        rib_phase=rng.uniform(0, 1),
        rib_gap=rng.normal(0.165, 0.01),
        rib_slope=rng.normal(1.0, 0.15),
        rib_density=rng.uniform(0.06, 0.2),
        clavicle=(rng.normal(-0.64, 0.03), rng.normal(-0.64, 0.03)),
        knob=rng.uniform(0.05, 0.085),
        breast=float(rng.choice([0.0, rng.uniform(0.05, 0.13)])),
        stomach=float(rng.choice([0.0, 0.0, rng.uniform(0.06, 0.2)])),
        muscle=rng.normal(0, 0.06, (10, 10)).astype(np.float32),
        vessels=vessels.astype(np.float32),
        grain=rng.normal(0, 1, (40, 40)).astype(np.float32),
    )


def draw_lesions(
    chest: Chest, rng: np.random.Generator, prevalence: Sequence[float]
) -> tuple[Lesion, ...]:
    """The patient's lesions; ``prevalence`` is the share of patients with each label."""
    lesions: list[Lesion] = []
    for label, share in enumerate(prevalence):
        count = int(rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1])) if rng.random() < share else 0
        sides = rng.permutation([-1, 1])
        for number in range(
            {EFFUSION: min(count, 2), CARDIOMEGALY: min(count, 1)}.get(label, count)
        ):
            side = int(sides[number]) if label == EFFUSION else int(rng.choice([-1, 1]))
            which = (side + 1) // 2
            across = rng.uniform(0.3, 0.8)
            place = (
                side * (chest.medial + across * (chest.lung_width[which] - chest.medial)),
                rng.uniform(-0.42, 0.32),
            )
            lobes = (
                tuple(rng.uniform(0.02, 0.12, 3).tolist()),
                tuple(rng.uniform(0, 2 * np.pi, 3).tolist()),
            )
            density, angle = rng.uniform(0.16, 0.36), rng.uniform(0, np.pi)
            if label == OPACITY:
                radii = (rng.uniform(0.11, 0.22), rng.uniform(0.09, 0.16))
            elif label == NODULE:
                radii = (radius := rng.uniform(0.042, 0.09), radius * rng.uniform(0.85, 1.0))
                lobes = (tuple(amplitude / 3 for amplitude in lobes[0]), lobes[1])
                density = rng.uniform(0.17, 0.36)
            elif label == EFFUSION:
                place = (float(side), chest.diaphragm[which] + rng.uniform(-0.22, 0.06))
                radii, density = (rng.uniform(0.1, 0.2), 0.0), rng.uniform(0.32, 0.5)
            else:
                place, radii = chest.heart[:2], (rng.uniform(1.32, 1.6), 0.0)
            lesions.append(Lesion(label, place, radii, angle, density, lobes))
    return tuple(lesions)


def step(x: Field) -> Field:
    """Smooth step: 0 at -1 and below, 0.5 at 0, 1 at 1 and above."""
    t = np.clip(x * np.float32(0.5) + np.float32(0.5), 0, 1)
    smooth: Field = t * t * (3 - 2 * t)
    return smooth


def upsample(coarse: Field, size: int, rows: slice, columns: slice) -> Field:
    """A coarse square grid stretched over the image, smoothly, and cut to a window."""
    position = (np.arange(size) + 0.5) / size * (len(coarse) - 1)
    weights = np.clip(1 - np.abs(position[:, None] - np.arange(len(coarse))), 0, 1)
    weights = (weights * weights * (3 - 2 * weights)).astype(np.float32)
    weights /= weights.sum(axis=1, keepdims=True)
    stretched: Field = weights[rows] @ coarse @ weights[columns].T
    return stretched


def _look_up(
    table: npt.NDArray[np.floating], x: Field, side: npt.NDArray[np.bool_] | None = None
) -> Field:
    """Values of a function tabulated over _AXIS; with ``side``, of the first or second of two functions."""
    cell = ((x + np.float32(_REACH)) * np.float32(_CELLS / (2 * _REACH))).astype(np.int32)
    np.clip(cell, 0, _CELLS - 1, out=cell)
    if side is not None:
        cell += side * np.int32(_CELLS)
    return table.astype(np.float32).ravel().take(cell)


def _ellipse(
    u: Field, v: Field, centre: tuple[float, float], radii: tuple[float, float], angle: float
) -> Field:
    """Distance from the centre, 1 on the ellipse."""
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    du, dv = u - np.float32(centre[0]), v - np.float32(centre[1])
    along, across = (
        (c * du + s * dv) / np.float32(radii[0]),
        (c * dv - s * du) / np.float32(radii[1]),
    )
    result: Field = np.sqrt(along * along + across * across)
    return result


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A chest seen through a window of pixels: coordinates and the lung fields, which most layers need."""

    chest: Chest
    pose: Pose
    size: int
    rows: slice
    columns: slice
    u: Field
    v: Field
    side: npt.NDArray[np.bool_]
    wall: Field  # distance from the midline of the inner chest wall
    floor: Field  # v of the diaphragm
    lungs: Field  # 0..1


def view(
    chest: Chest, pose: Pose, size: int, rows: slice | None = None, columns: slice | None = None
) -> View:
    """Look at a chest; without rows and columns, at all of the image."""
    rows, columns = rows or slice(0, size), columns or slice(0, size)
    u, v = pose.chest(size, rows, columns)
    side, across = u > 0, np.abs(u)
    widest = 0.2
    rise = np.clip((widest - _AXIS) / (widest - chest.lung_top), 0, 1)
    outline = (1 - rise**3.2) ** 0.5 * (1 + 0.05 * np.clip(_AXIS - widest, 0, 1))
    wall = _look_up(np.stack([outline * width for width in chest.lung_width]), v, side)
    inner = _look_up(
        chest.medial + 0.15 * np.exp(np.clip(-(_AXIS - chest.lung_top) / 0.14, -9, 1)), v
    )
    from_top = np.abs(_AXIS) - 0.36
    dome = np.where(from_top > 0, 0.24, 0.09) * (np.abs(from_top) / 0.4) ** 2.2
    floor = _look_up(
        np.stack([dome + level + pose.breath for level in chest.diaphragm]), across, side
    )
    lungs = step((wall - across) / 0.022) * step((across - inner) / 0.03) * step((floor - v) / 0.02)
    return View(chest, pose, size, rows, columns, u, v, side, wall, floor, lungs)


def healthy(seen: View) -> Field:
    """Density of the chest without its heart and without lesions."""
    chest, u, v = seen.chest, seen.u, seen.v
    across = np.abs(u)
    outline = np.interp(
        _AXIS, [-1.15, -1.0, -0.82, -0.6, 0.2, 1.2], [0.28, 0.42, 0.95, 1.12, 1.0, 1.06]
    )
    outline = np.convolve(
        np.pad(outline, 60, mode="edge"), np.hanning(121) / np.hanning(121).sum(), mode="valid"
    )
    reach = across / _look_up(outline * chest.body_width, v)
    body = step((1 - reach) / 0.03) * (1 - 0.45 * reach**4)
    thickness = 1 - 0.62 * ((across - 0.42) / 0.55) ** 2
    density = body * (0.92 + upsample(chest.muscle, seen.size, seen.rows, seen.columns))
    density -= seen.lungs * (0.5 * thickness)
    density += _bones(seen, across) + _middle(seen, across)
    density += 0.15 * step((1 - reach) / 0.2) * step((v - seen.floor) / 0.07)
    if chest.stomach:
        bubble = _ellipse(u, v, (0.36, chest.diaphragm[1] + 0.13), (0.15, 0.075), 0.15)
        density -= chest.stomach * step((1 - bubble) / 0.45)
    if chest.breast:
        shade = _ellipse(across, v, (0.45, 0.3), (0.33, 0.30), 0.2)
        density += chest.breast * step((1 - shade) / 0.12) * step((v - 0.05) / 0.25)
    return density


def _bones(seen: View, across: Field) -> Field:
    """Ribs at the back and, fainter, at the front; clavicles; spine."""
    chest, v = seen.chest, seen.v
    reach = np.abs(_AXIS)
    back = (
        -0.05 * np.sin(np.clip((reach - 0.05) / 0.4, 0, 1) * np.pi)
        + 0.75 * np.clip(reach - 0.3, 0, 2) ** 1.7
    )
    front = -0.5 * np.clip(reach - 0.2, 0, 2) + 0.5 * np.clip(reach - 0.55, 0, 2) ** 2
    cage = step((seen.wall + 0.035 - across) / 0.03)
    turn = (_AXIS / _REACH + 1) / 2  # position within one rib and the space after it
    band = 0.75 * np.exp(-(((turn - 0.5) / 0.19) ** 6)) + 0.35 * np.exp(
        -(((np.abs(turn - 0.5) - 0.17) / 0.035) ** 2)
    )

    def ribs(curve: npt.NDArray[np.floating], gap: float, phase: float) -> Field:
        turns = (v - _look_up(curve, across)) / np.float32(gap) + np.float32(phase)
        turns -= np.floor(turns)
        return _look_up(band, (2 * turns - 1) * np.float32(_REACH))

    fade = step((0.62 - v) / 0.15) * step((v + 0.95) / 0.1) * cage
    bones = ribs(back * chest.rib_slope, chest.rib_gap, chest.rib_phase) * step(
        (across - 0.06) / 0.04
    )
    bones *= np.float32(chest.rib_density) * (0.75 + 0.5 * across)
    bones += ribs(front * chest.rib_slope, chest.rib_gap * 1.1, 0.3 + chest.rib_phase) * (
        np.float32(0.55 * chest.rib_density) * step((across - 0.3) / 0.12)
    )
    bones *= fade
    curve = 0.04 * np.sin(5.5 * reach) - 0.24 * reach
    axis = _look_up(np.stack([curve + level for level in chest.clavicle]), across, seen.side)
    collar = (
        step((0.028 - np.abs(v - axis)) / 0.014)
        * step((across - 0.07) / 0.03)
        * step((0.86 - across) / 0.1)
    )
    bones += 0.13 * collar
    disc = 1 - 0.35 * np.exp(-((np.mod(_AXIS / 0.135, 1) - 0.5) ** 2) / 0.01)
    bones += 0.08 * step((0.075 - across) / 0.02) * _look_up(disc, v)
    return bones


def _middle(seen: View, across: Field) -> Field:
    """Mediastinum, trachea, aortic knob, and the lungs' vessels and fine texture."""
    chest, u, v = seen.chest, seen.u, seen.v
    half = np.interp(_AXIS, [-0.9, -0.5, -0.2, 0.1, 0.6], [0.1, 0.11, 0.13, 0.13, 0.12])
    density = 0.13 * step((_look_up(half, v) - across) / 0.04)
    density -= 0.1 * step((0.035 - np.abs(u + 0.01)) / 0.018) * step((-0.2 - v) / 0.08)
    knob = step((1 - _ellipse(u, v, (0.09, -0.33), (chest.knob + 0.03, 0.09), 0.0)) / 0.25)
    density += 0.24 * knob * step((across - 0.12) / 0.04)
    du, dv = across - np.float32(0.17), v + np.float32(0.06)
    far = np.sqrt(du * du + dv * dv)
    turns = np.arctan2(dv, du) * np.float32(1024 / (2 * np.pi)) + far * (60 * np.sin(9 * far))
    cell = turns.astype(np.int32) & 1023
    cell += seen.side * np.int32(1024)
    vessels = (
        chest.vessels.ravel().take(cell)
        * np.exp(-far / np.float32(0.26))
        * step((far - 0.05) / 0.05)
    )
    hilum = np.exp(-far * far / np.float32(0.012))
    grain = upsample(chest.grain, seen.size, seen.rows, seen.columns)
    density += seen.lungs * (0.26 * vessels + 0.16 * hilum + 0.03 * grain)
    return density


def wires(size: int, rng: np.random.Generator) -> Field:
    """Density of wires and tubes, (size, size); nothing in two images of three. No sign of any disease."""
    density = np.zeros((size + 2, size + 2), dtype=np.float32)
    count = int(rng.integers(1, 5)) if rng.random() < 0.35 else 0
    t = np.linspace(0, 1, 4 * size, dtype=np.float32)[:, None]
    for _ in range(count):
        ends, bends = rng.uniform(-0.05, 1.05, (2, 2)), rng.uniform(0, 1, (2, 2))
        # A cubic Bezier curve in parts of the image's side.
        points = (
            (1 - t) ** 3 * ends[0]
            + 3 * (1 - t) ** 2 * t * bends[0]
            + 3 * (1 - t) * t**2 * bends[1]
            + t**3 * ends[1]
        ).astype(np.float32)
        length = np.hypot(*np.gradient(points, axis=0).T) * size
        mass = np.float32(rng.uniform(0.15, 0.4) * rng.uniform(0.004, 0.01) * size) * length
        place = points * size + 0.5
        cell, part = np.floor(place).astype(int), place - np.floor(place)
        inside = ((cell >= 0) & (cell <= size)).all(axis=1)
        for down in (0, 1):
            for right in (0, 1):
                share = (part[:, 0] if down else 1 - part[:, 0]) * (
                    part[:, 1] if right else 1 - part[:, 1]
                )
                at = (cell[inside, 0] + down, cell[inside, 1] + right)
                np.add.at(density, at, (mass * share)[inside])
    return density[1:-1, 1:-1]


def heart(seen: View, factor: float) -> tuple[Field, Field]:
    """Density of the heart and, 0..1, where it stands out (above the diaphragm); ``factor`` enlarges it, 1 is the healthy size."""
    u0, v0, along, across, angle = seen.chest.heart
    # An enlarged heart grows to the patient's left and rests on the diaphragm.
    grown = factor - 1
    left = (u0 + 0.10 * grown, v0 + 0.3 * seen.pose.breath - 0.10 * grown)
    main = _ellipse(seen.u, seen.v, left, (along * factor, across * factor), angle)
    right = (-0.075 - 0.03 * grown, v0 - 0.04 - 0.08 * grown)
    atrium = _ellipse(seen.u, seen.v, right, (0.115 * factor, 0.2 * factor**0.8), 0.1)
    near = np.minimum(main, atrium)
    where = step((1 - near) / 0.07)
    # In the midline and below the diaphragm there is no air for it to displace.
    above = step((seen.floor + 0.03 - seen.v) / 0.06)
    air = (0.12 + 0.88 * step((np.abs(seen.u) - 0.1) / 0.06)) * (0.15 + 0.85 * above)
    return 0.36 * where * air * (0.72 + 0.28 * np.clip(1 - near * near, 0, 1)), where * above


def lesion_shape(seen: View, lesion: Lesion) -> Field:
    """Where an opacity, a nodule or an effusion is, 0..1, within a window."""
    if lesion.label == EFFUSION:
        side, level = lesion.centre
        across = np.abs(seen.u)
        rise = np.clip((across - 0.3) / (seen.wall - 0.3), 0, 1.2)
        surface = (
            np.float32(level + seen.pose.breath + 0.12) - np.float32(lesion.radii[0]) * rise * rise
        )
        fluid: Field = seen.lungs * step((seen.v - surface) / 0.05) * (seen.side == (side > 0))
        return fluid
    near = _ellipse(seen.u, seen.v, lesion.centre, lesion.radii, lesion.angle)
    turn = np.arctan2(seen.v - np.float32(lesion.centre[1]), seen.u - np.float32(lesion.centre[0]))
    for waves, (amplitude, phase) in enumerate(zip(*lesion.lobes, strict=True), start=2):
        near = near * (1 + np.float32(amplitude) * np.cos(waves * turn + np.float32(phase)))
    soft = 0.4 if lesion.label == NODULE else 0.5
    shape: Field = step((1 - near) / np.float32(soft)) * np.clip(seen.lungs * 1.25, 0, 1)
    return shape


def lesion_window(chest: Chest, pose: Pose, size: int, lesion: Lesion) -> tuple[slice, slice]:
    """Pixels (rows, columns) outside which the lesion adds nothing."""
    if lesion.label == CARDIOMEGALY:
        return slice(0, size), slice(0, size)
    if lesion.label == EFFUSION:
        return pose.box(size, (lesion.centre[0] * 0.45, 0.5), 0.62)
    return pose.box(size, lesion.centre, 2.0 * max(lesion.radii))


def bounds(where: Field, rows: slice, columns: slice) -> tuple[float, float, float, float] | None:
    """The tight box (x1, y1, x2, y2), right and bottom exclusive, of the visible part of a shape in a window."""
    visible = where >= VISIBLE
    # Rows and columns with only a sliver of the shape (fluid that thins out along the diaphragm) do not widen the box.
    down, along = visible.sum(axis=1), visible.sum(axis=0)
    if not down.any():
        return None
    ys, xs = (
        np.flatnonzero(down > SLIVER * down.max()),
        np.flatnonzero(along > SLIVER * along.max()),
    )
    left, top = columns.start, rows.start
    return (
        float(left + xs[0]),
        float(top + ys[0]),
        float(left + xs[-1] + 1),
        float(top + ys[-1] + 1),
    )
