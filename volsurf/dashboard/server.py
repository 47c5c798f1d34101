"""The server of the dashboard notebooks: Voila, made fit to be left alone.

What stock Voila 0.5 lacks here, each measured:

* a client that opens a kernel's websocket without the v1 subprotocol sends the server into an endless loop as soon as binary
  messages flow: such upgrades are refused;
* the page's farewell is refused for want of an XSRF cookie, so every visit leaves a kernel behind: the cookie is set;
* its template fetches style sheets from a CDN: ours does not, and a content security policy keeps every page on this host;
* it starts the kernel named python3, whatever Python that is: ours is always the interpreter that runs the server.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ipykernel.kernelspec
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.web import HTTPError
from traitlets import Integer
from voila.app import Voila
from voila.tornado.kernel_websocket_handler import VoilaKernelWebsocketHandler

HOST = "127.0.0.1"
SUBPROTOCOL = "v1.kernel.websocket.jupyter.org"
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",  # Voila's page has inline scripts; widgets load from blob: URLs
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "frame-ancestors 'self'",
        "form-action 'self'",
    )
)


class OwnKernel(KernelSpecManager):
    """One kernel: IPython in the interpreter that runs this server."""

    def find_kernel_specs(self) -> dict[str, str]:
        """Its name and resources."""
        return {"python3": ipykernel.kernelspec.RESOURCES}

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """The same, whatever the name: a notebook saved elsewhere may name another."""
        command = [sys.executable, "-P", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        command += ["--HistoryManager.enabled=False", "--log-level=ERROR"]
        resources = ipykernel.kernelspec.RESOURCES
        return KernelSpec(argv=command, display_name="Python 3", language="python", resource_dir=resources)


class GuardedSocket(VoilaKernelWebsocketHandler):
    """A kernel's websocket, for clients that speak the protocol Voila can read."""

    async def get(self, *args: Any, **kwargs: Any) -> None:
        """Refuse everyone else before the connection is made."""
        offered = {word.strip() for word in self.request.headers.get("Sec-WebSocket-Protocol", "").split(",")}
        if SUBPROTOCOL not in offered:
            raise HTTPError(400, f"this server's kernels speak {SUBPROTOCOL} only")
        await super().get(*args, **kwargs)


class DashboardServer(Voila):
    """Voila with the guards above, on loopback, ending with its parent."""

    visitors = Integer(32, min=1, config=True, help="Kernels at most; a visit beyond that is turned away.")

    def init_settings(self) -> dict[str, Any]:
        """Voila's, without its open door for foreign host names: a page that rebinds its name to us is refused."""
        settings: dict[str, Any] = super().init_settings()
        settings |= {"allow_remote_access": False, "local_hostnames": ["localhost"]}
        settings["headers"] = {"Content-Security-Policy": POLICY}
        return settings

    def init_handlers(self) -> list[Any]:
        """Voila's, with the guarded websocket in place of the open one."""
        handlers: list[Any] = super().init_handlers()
        guarded = [(h[0], GuardedSocket, *h[2:]) if h[1] is VoilaKernelWebsocketHandler else h for h in handlers]
        if guarded == handlers:
            raise RuntimeError("this release of Voila has no kernel websocket to guard")
        return guarded

    def welcome(self, handler: Any, notebook: object, cwd: object) -> None:
        """Before a visit's kernel starts: is there room, and the cookie with which the page may end it."""
        if len(self.kernel_manager.list_kernel_ids()) >= self.visitors:
            raise HTTPError(503, f"{self.visitors} visitors already")
        handler.xsrf_token  # noqa: B018  reading it sets the cookie

    def listen(self) -> None:
        """Take the port, tell the parent, and serve until a signal comes or the parent goes."""
        wanted: int = self.port  # type: ignore[has-type]
        try:
            sockets = bind_sockets(wanted, HOST)
        except OSError as error:
            reason = f"port {wanted} of the dashboard cannot be used: {error.strerror}"
            print(json.dumps({"error": reason}), flush=True)
            self.exit(1)
        self.port = port = sockets[0].getsockname()[1]
        HTTPServer(self.app).add_sockets(sockets)
        self.ioloop = IOLoop.current()
        self.ioloop.add_handler(sys.stdin.fileno(), self._parent, IOLoop.READ)
        print(json.dumps({"url": f"http://{HOST}:{port}/"}), flush=True)
        try:
            self.ioloop.start()
        except KeyboardInterrupt:
            pass
        finally:
            self.stop()

    def _parent(self, descriptor: int, _events: int) -> None:
        if not os.read(descriptor, 4096):
            self.ioloop.remove_handler(descriptor)
            self.ioloop.stop()


def main(argv: Sequence[str] | None = None) -> None:
    """`python -m volsurf.dashboard.server NOTEBOOK`: serve until standard input closes."""
    parser = argparse.ArgumentParser(description="Serve one dashboard notebook on loopback.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--port", type=int, default=8866)
    parser.add_argument("--theme", choices=("dark", "light"), default="dark")
    parser.add_argument("--cull-seconds", type=float, default=120.0)
    args = parser.parse_args(argv)
    # Voila looks for templates in the Jupyter folders; ours come with the package.
    ours = str(Path(__file__).parent / "jupyter")
    os.environ["JUPYTER_PATH"] = os.pathsep.join(p for p in (ours, os.environ.get("JUPYTER_PATH", "")) if p)
    # It warns once a visit, about jupyter_server's own ping settings and about the sockets of a kernel that was just ended.
    logging.getLogger("tornado.general").setLevel(logging.ERROR)
    server = DashboardServer.instance()
    server.initialize(_configuration(args))
    server.voila_configuration.prelaunch_hook = server.welcome
    server.voila_configuration.kernel_spec_manager_class = OwnKernel
    server.start()


def _configuration(args: argparse.Namespace) -> list[str]:
    cull = max(1, round(args.cull_seconds))
    values = {
        # Nothing from the working directory or the user's Jupyter folders: what is served is what was shipped.
        "Voila.config_file_paths": args.notebook.parent,
        "Voila.port": args.port,
        "Voila.ip": HOST,
        "Voila.open_browser": False,
        "Voila.log_level": "ERROR",
        "VoilaConfiguration.template": "volsurf",
        "VoilaConfiguration.theme": args.theme,
        "VoilaConfiguration.allow_template_override": "NO",
        "VoilaConfiguration.allow_theme_override": "NO",
        "VoilaConfiguration.strip_sources": True,
        "VoilaConfiguration.show_tracebacks": False,
        "MappingKernelManager.cull_idle_timeout": cull,
        "MappingKernelManager.cull_interval": max(1, cull // 4),
        "MappingKernelManager.cull_connected": False,
        # A sleeping laptop must not fill the server's memory, nor get the whole backlog when it wakes.
        "MappingKernelManager.buffer_offline_messages": False,
    }
    return [f"--{name}={value}" for name, value in values.items()] + [str(args.notebook)]


if __name__ == "__main__":
    main()
