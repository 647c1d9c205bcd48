"""The cell of a network, drawn as a graph, for spaces whose networks repeat one."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch

from latlab.harness.report.chart import Chart
from latlab.harness.report.svg import inline_svg
from latlab.harness.report.theme import COLOURS, figure
from latlab.harness.search.result import Finalist
from latlab.harness.text import clean
from latlab.search_spaces import CellEdge, UnknownSpaceError, get

__all__ = ["cell_chart"]

WIDTH, HEIGHT = 760, 270
NODE_PX = 13
BEND = 0.42
"""Height of the arc of an edge that passes nodes, as a share of its length; neighbours are joined by straight lines."""
LABEL = 40
"""Most characters of an operation's name."""


def cell_chart(space_name: str, winner: Finalist) -> Chart | None:
    """Return a chart of the answer's cell: nodes, and edges with their operations; None for spaces without cells."""
    try:
        space = get(space_name)
    except UnknownSpaceError:
        return None
    edges = space.cell_edges(space.parse(winner.arch))
    if not edges:
        return None
    last = max(3, *(edge.node for edge in edges))
    fig = figure(WIDTH, HEIGHT)
    axes = fig.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    scale = WIDTH / (last + 0.8)
    axes.set_xlim(-0.4, last + 0.4)
    axes.set_ylim(-HEIGHT / scale / 2, HEIGHT / scale / 2)
    for edge in edges:
        _draw(axes, edge, scale)
    names = {0: "in", last: "out"}
    for node in range(last + 1):
        axes.scatter([node], [0], s=(2 * NODE_PX) ** 2, color=COLOURS["paper"], edgecolors=COLOURS["ink"], zorder=3)
        axes.text(node, 0, names.get(node, str(node)), ha="center", va="center", fontsize=10, zorder=4)
    live = [edge for edge in edges if edge.live]
    caption = f"Each cell of the network is this graph, with {len(live)} of its {len(edges)} operations in use."
    if len(live) < len(edges):
        caption += " Dashed ones are on no path from the input to the output, and change no result."
    return Chart(inline_svg(fig, "cell", "The cell of the answer"), "The answer's cell", caption)


def _draw(axes: Axes, edge: CellEdge, scale: float) -> None:
    """Draw an edge as an arrow with its operation, `scale` pixels a unit; long ones are arcs, even ones above."""
    length = edge.node - edge.source
    bend = 0.0 if length == 1 else BEND * (-1 if length > 2 or edge.source % 2 == 0 else 1)
    colour = COLOURS["train" if edge.live else "muted"]
    axes.add_patch(
        FancyArrowPatch(
            (edge.source, 0),
            (edge.node, 0),
            connectionstyle=f"arc3,rad={bend}",
            arrowstyle="-|>,head_length=6,head_width=3",
            shrinkA=NODE_PX,
            shrinkB=NODE_PX,
            color=colour,
            linewidth=1.4,
            linestyle="-" if edge.live else (0, (3, 3)),
            zorder=1,
        )
    )
    middle = (edge.source + edge.node) / 2
    height = -bend * length / 2  # the middle of a quadratic curve whose control point is that far off
    axes.text(
        middle,
        height + (-9 if bend > 0 else 9) / scale,
        clean(edge.operation, LABEL),
        ha="center",
        va="center",
        fontsize=11,
        color=COLOURS["ink" if edge.live else "muted"],
        zorder=2,
    )
