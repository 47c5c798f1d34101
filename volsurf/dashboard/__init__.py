"""The dashboard notebooks served to browsers: `launch_dashboard(stream_url)` starts the server as a child process."""

from volsurf.dashboard.app import DashboardProcess, launch_dashboard, notebooks_folder

__all__ = ["DashboardProcess", "launch_dashboard", "notebooks_folder"]
