"""The 3-D vol surface of one underlying, live."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import traitlets

from volsurf.widgets._esm import panel_module
from volsurf.widgets._payload import frame_facts, surface_payload
from volsurf.widgets.live import COLOUR_MAPS, LiveView, shown_underlying

if TYPE_CHECKING:
    from volsurf.engine.frame import Frame

AXES = ("delta", "log_moneyness")


class SurfacePanel(LiveView):
    """Strike × time to expiry × vol, coloured by vol: drag to turn, wheel or +/− to zoom, point at it to read it.

        SurfacePanel(session, underlying="ETH", axis="log_moneyness")

    Args:
        source: a session.
        underlying: which one; "" for the first there is.
        axis: "delta" spaces strikes by ln(K/F)/(atm vol·√years) and labels them with the delta that has in a flat smile;
            "log_moneyness" by ln(K/F).
        reach: how many standard deviations from the forward are drawn, at most 5; only where there are two-sided quotes.
        colours: "viridis", "cividis" or "ember".
        camera: (yaw, pitch) in radians and zoom.
        theme: "follow" the notebook, "light" or "dark".
    """

    _esm = panel_module("surface")
    browser_traits = frozenset({"underlying", "camera", "axis"})

    axis = traitlets.Enum(AXES, "delta").tag(sync=True)
    reach = traitlets.Float(2.5, min=0.5, max=5.0).tag(sync=True)
    colours = traitlets.Enum(COLOUR_MAPS, "viridis").tag(sync=True)
    camera = traitlets.List(traitlets.Float(), [-0.62, 0.42, 1.0], minlen=3, maxlen=3).tag(sync=True)

    def content(self, frame: Frame) -> object:
        """The surface itself."""
        return frame.surfaces.get(shown_underlying(frame, self.underlying))

    def encode(self, frame: Frame) -> bytes:
        """Five numbers and a range of strikes per expiry."""
        underlying = shown_underlying(frame, self.underlying)
        return surface_payload(frame_facts(frame, underlying), frame.surfaces.get(underlying))

    @traitlets.validate("camera")  # type: ignore[untyped-decorator]
    def _sane_camera(self, proposal: dict[str, Any]) -> list[float]:
        yaw, pitch, zoom = proposal["value"]
        if not (math.isfinite(yaw) and 0.0 <= pitch <= 1.6 and 0.25 <= zoom <= 8.0):
            raise traitlets.TraitError("camera is (yaw, pitch of 0 to 1.6, zoom of 0.25 to 8)")
        return [math.remainder(yaw, 2.0 * math.pi), pitch, zoom]
