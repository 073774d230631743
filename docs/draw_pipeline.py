"""Draw docs/pipeline.png from the demo cohort: `make demo`, then `.venv/bin/python docs/draw_pipeline.py`."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ctpatch.build.one_lesion import LesionPlan, plan_lesion
from ctpatch.contours import open_mask
from ctpatch.images.image import Box
from ctpatch.lesion.lattice import lesion_lattice
from ctpatch.manifest import read_manifest
from ctpatch.manifest.split import assign_splits
from ctpatch.patches.render import render
from ctpatch.patches.sample import sample_planes
from ctpatch.recipe import Recipe

HERE = Path(__file__).parent
MANIFEST = HERE.parent / "demo" / "cohort" / "demo.csv"
PATIENT = "024"  # unevenly spaced slices
COLORS = ("#e4572e", "#2e86ab", "#7cb518")
NAMES = ("xy", "xz", "yz")
SHOWN = (6, 10, 14)  # patch numbers, one of each plane


def main() -> None:
    recipe = Recipe()
    rows = assign_splits(read_manifest(MANIFEST).rows, seed=recipe.seed)
    plan = plan_lesion(next(row for row in rows if row.patient_id == PATIENT and row.split == "train"), recipe)
    figure = Figure(figsize=(13, 4.3), facecolor="white", layout="constrained")
    left, middle, right = figure.subfigures(1, 3, width_ratios=(1.1, 1.2, 1.9))
    draw_slices(left.subplots(2, 1), plan)
    draw_planes(middle.add_subplot(projection="3d"), plan, recipe)
    draw_patches(right.subplots(3, 6), plan, recipe)
    left.suptitle("CT slices where they lie, contour", fontsize=11)
    middle.suptitle("lesion on the 0.5 mm lattice; planes, copies", fontsize=11)
    right.suptitle("HU 64×64: original and two copies            RGB 224×224", fontsize=11)
    FigureCanvasAgg(figure).print_png(HERE / "pipeline.png")


def draw_slices(axes: np.ndarray, plan: LesionPlan) -> None:
    stack, mask = plan.image.stack, plan.mask
    assert mask is not None
    hu = plan.image.read_hu(Box((0, len(stack)), (0, stack.shape[0]), (0, stack.shape[1])))
    k = mask.corner[0] + len(mask.voxels) // 2
    row, column = (mask.corner[i] + mask.voxels.shape[i] // 2 for i in (1, 2))
    dy, dx = stack.spacing
    axes[0].imshow(hu[k], cmap="gray", vmin=-200, vmax=250, aspect=dy / dx)
    assert plan.row.mask is not None
    for contour in open_mask(plan.row.mask).read(plan.row.roi, plan.image).contours:
        points = stack.to_stack(contour)
        if abs(points[:, 2].mean() - stack.positions[k]) < 0.1:
            axes[0].plot(*stack.to_pixels(points, k).T, color=COLORS[0], lw=1.2)
    edges = np.concatenate([[0], (stack.positions[1:] + stack.positions[:-1]) / 2, stack.positions[-1:]])
    axes[1].pcolormesh(np.arange(stack.shape[1] + 1) * dx, edges, hu[:, row], cmap="gray", vmin=-200, vmax=250)
    for z in stack.positions:
        axes[1].axhline(z, color="#ffd166", lw=0.4)
    axes[1].axvline(column * dx, color=COLORS[0], lw=0.5, ls=":")
    axes[1].set_aspect("equal")
    for ax in axes:
        bare(ax)


def draw_planes(ax: Axes, plan: LesionPlan, recipe: Recipe) -> None:
    assert plan.mask is not None
    lattice = lesion_lattice(plan.mask, plan.image.stack, recipe.spacing_mm)
    points = lattice.points(np.arange(0, len(lattice), max(1, len(lattice) // 2500)))
    middle = lattice.middle()
    ax.scatter(*(points - middle).T, s=1.5, color="#555", alpha=0.25, lw=0)
    start, column, row = plan.planes.pixels(recipe.spacing_mm)
    for patch, color in zip(SHOWN, (COLORS[plan.planes.plane[3 * p]] for p in SHOWN), strict=True):
        for n in range(3 * patch, 3 * patch + 3):
            corners = [
                start[n] + a * 63 * row[n] + b * 63 * column[n] for a, b in ((0, 0), (0, 1), (1, 1), (1, 0), (0, 0))
            ]
            ax.plot(
                *(np.array(corners) - middle).T,
                color=color,
                lw=1.6 if n % 3 == 0 else 0.7,
                alpha=1 if n % 3 == 0 else 0.7,
            )
    ax.set_box_aspect((1, 1, 1), zoom=0.85)  # room for the label of n
    ax.set_xlim(-25, 25), ax.set_ylim(-25, 25), ax.set_zlim(-25, 25)
    (
        ax.set_xlabel("r (mm)", fontsize=8),
        ax.set_ylabel("c (mm)", fontsize=8),
        ax.set_zlabel("n (mm)", fontsize=8, labelpad=-1),
    )
    ax.tick_params(labelsize=6)


def draw_patches(axes: np.ndarray, plan: LesionPlan, recipe: Recipe) -> None:
    hu, _ = sample_planes(plan.image, plan.planes, recipe.spacing_mm)
    rgb = render(hu)
    for line, patch in zip(axes, SHOWN, strict=True):
        plane = int(plan.planes.plane[3 * patch])
        for n, (gray, colour) in enumerate(zip(line[:3], line[3:], strict=True)):
            gray.imshow(hu[3 * patch + n], cmap="gray", vmin=-200, vmax=250)
            colour.imshow(rgb[3 * patch + n])
            bare(gray, COLORS[plane])
            bare(colour, COLORS[plane])
        line[0].set_ylabel(NAMES[plane], fontsize=11, color=COLORS[plane])


def bare(ax: Axes, color: str = "#888") -> None:
    ax.set_xticks([]), ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_color(color)


if __name__ == "__main__":
    main()
