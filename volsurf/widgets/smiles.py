"""The smiles of one underlying, one small chart per expiry, live."""

from __future__ import annotations

from typing import TYPE_CHECKING

import traitlets

from volsurf.widgets._esm import panel_module
from volsurf.widgets._payload import frame_facts, smiles_payload
from volsurf.widgets.live import LiveView, shown_underlying

if TYPE_CHECKING:
    from volsurf.engine.frame import Frame


class SmilesPanel(LiveView):
    """Every expiry's bid and ask vols with the fitted curve and its certificate; click one to enlarge it, Escape for all.

        SmilesPanel(session, underlying="BTC")

    Args:
        source: a session.
        underlying: which one; "" for the first there is.
        expiry: the enlarged expiry, milliseconds UTC; 0 for all.
        theme: "follow" the notebook, "light" or "dark".
    """

    _esm = panel_module("smiles")
    browser_traits = frozenset({"underlying", "expiry"})

    expiry = traitlets.Int(0, min=0, max=2**53).tag(sync=True)

    def content(self, frame: Frame) -> object:
        """The surface, whose smiles hold the quotes."""
        return frame.surfaces.get(shown_underlying(frame, self.underlying))

    def encode(self, frame: Frame) -> bytes:
        """Five numbers per expiry and 19 bytes per quote."""
        underlying = shown_underlying(frame, self.underlying)
        return smiles_payload(frame_facts(frame, underlying), frame.surfaces.get(underlying))
