"""The panels of a session laid out as one: status above, surface beside smiles."""

from __future__ import annotations

from typing import Any

import ipywidgets
import traitlets

from volsurf.widgets.live import THEMES, FrameSource
from volsurf.widgets.smiles import SmilesPanel
from volsurf.widgets.status import StatusPanel
from volsurf.widgets.surface import SurfacePanel

_OF_SURFACE = ("axis", "reach", "colours", "camera")


class Dashboard(ipywidgets.VBox):
    """What `session.widget()` shows: `.status`, `.surface` and `.smiles`, which follow one choice of underlying.

        Dashboard(session, underlying="ETH", height="720px", colours="cividis")

    Args:
        source: a session.
        underlying: shown first; "" for the first the frames carry.
        theme: "follow" the notebook, "light" or "dark".
        height: CSS height of the whole.
        axis, reach, colours, camera: of the surface, see `SurfacePanel`.
    """

    underlying = traitlets.Unicode("")
    theme = traitlets.Enum(THEMES, "follow")

    def __init__(
        self,
        source: FrameSource,
        *,
        underlying: str = "",
        theme: str = "follow",
        height: str = "640px",
        **settings: Any,
    ) -> None:
        if unknown := sorted(set(settings) - set(_OF_SURFACE)):
            known = ", ".join(("underlying", "theme", "height", *_OF_SURFACE))
            raise TypeError(f"widget() has no setting {unknown[0]!r}; there are: {known}")
        common = {"underlying": underlying, "theme": theme}
        layout = ipywidgets.Layout
        self.status = StatusPanel(source, **common, layout=layout(height="auto", flex="0 0 auto", margin="0"))
        self.surface = SurfacePanel(
            source, **common, **settings, layout=layout(flex="1 1 0", height="100%", min_width="0", margin="0")
        )
        self.smiles = SmilesPanel(
            source, **common, layout=layout(flex="1.15 1 0", height="100%", min_width="0", margin="0")
        )
        panels = ipywidgets.HBox(
            [self.surface, self.smiles], layout=layout(flex="1 1 0", min_height="0", width="100%", margin="0")
        )
        super().__init__([self.status, panels], layout=layout(height=height, width="100%", overflow="hidden"))
        # By these names the style in status.js finds them, to put them below one another where there is little width.
        self.add_class("volsurf-dashboard")
        panels.add_class("volsurf-panels")
        self.smiles.add_class("volsurf-smiles")
        self.underlying, self.theme = underlying, theme
        for panel in (self.status, self.surface, self.smiles):
            traitlets.link((self, "underlying"), (panel, "underlying"))
            traitlets.link((self, "theme"), (panel, "theme"))

    def __repr__(self) -> str:
        return f"Dashboard({self.underlying or 'first underlying'})"

    def close(self) -> None:
        """Stop following the session and remove every view."""
        # ipywidgets also calls this from __del__, which runs for an object whose construction failed as well.
        for name in ("status", "surface", "smiles"):
            if (panel := self.__dict__.get(name)) is not None:
                panel.close()
        super().close()
