"""Live panels for notebooks and dashboards; `session.widget()` lays them out."""

from volsurf.widgets.dashboard import Dashboard
from volsurf.widgets.smiles import SmilesPanel
from volsurf.widgets.status import StatusPanel
from volsurf.widgets.surface import SurfacePanel

__all__ = ["Dashboard", "SmilesPanel", "StatusPanel", "SurfacePanel"]
