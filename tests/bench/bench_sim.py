"""How many messages a second the simulated exchange makes, against a reader that only counts frames.

    python -m tests.bench.bench_sim [--rate max] [--seconds 5] [--sockets 1] [--underlyings BTC,ETH] [--json]

The exchange runs in its own process (`volsurf sim`), the reader here, so on two cores each has one. Beside the rate over the wall
clock it prints processor time per message of either side, which a busy machine does not distort as much.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import subprocess
import sys
import time
from urllib.parse import urlsplit

import psutil

_HANDSHAKE = (
    b"GET /ws/api/v2 HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Counter:
    """One socket: whole frames and bytes that arrived on it."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(_HANDSHAKE)
        self._data = b""
        while b"\r\n\r\n" not in self._data:
            self._data += self.socket.recv(1 << 16)
        self._data = self._data.split(b"\r\n\r\n", 1)[1]
        self.frames = self.bytes = 0

    def send(self, method: str, **params: object) -> None:
        """One request, in a frame masked with zeros."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        head = bytes((0x81, 0xFE)) + len(body).to_bytes(2) if len(body) > 125 else bytes((0x81, 0x80 | len(body)))
        if len(body) > 65_535:
            head = bytes((0x81, 0xFF)) + len(body).to_bytes(8)
        self.socket.sendall(head + bytes(4) + body)

    def reply(self) -> dict[str, object]:
        """The next frame, decoded."""
        while (end := self._end_of_frame(0)) is None:
            self._data += self.socket.recv(1 << 20)
        head = {126: 4, 127: 10}.get(self._data[1], 2)
        body, self._data = self._data[head:end], self._data[end:]
        return json.loads(body)

    def read(self) -> bool:
        """Count what is there; False at the end of the stream."""
        new = self.socket.recv(1 << 20)
        self.bytes += len(new)
        data, at = self._data + new, 0
        # The count is written out: a call a frame would make the reader the bottleneck.
        size = len(data)
        while at + 4 <= size:
            length = data[at + 1]
            if length == 126:
                end = at + 4 + ((data[at + 2] << 8) | data[at + 3])
            elif length < 126:
                end = at + 2 + length
            else:
                if at + 10 > size:
                    break
                end = at + 10 + int.from_bytes(data[at + 2 : at + 10])
            if end > size:
                break
            at = end
            self.frames += 1
        self._data = data[at:]
        return bool(new)

    def _end_of_frame(self, at: int) -> int | None:
        data = self._data
        if len(data) < at + 10:
            return None
        length, head = data[at + 1], 2
        if length == 126:
            length, head = int.from_bytes(data[at + 2 : at + 4]), 4
        elif length == 127:
            length, head = int.from_bytes(data[at + 2 : at + 10]), 10
        return at + head + length if len(data) >= at + head + length else None


def main() -> int:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", default="max")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--sockets", type=int, default=1)
    parser.add_argument("--underlyings", default="BTC,ETH")
    parser.add_argument("--truth", default="svi")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    command = [sys.executable, "-m", "volsurf.cli", "sim", "--json", "--rate", args.rate, "--truth", args.truth]
    with subprocess.Popen([*command, "--underlyings", args.underlyings], stdout=subprocess.PIPE, text=True) as exchange:
        try:
            assert exchange.stdout is not None
            port = urlsplit(json.loads(exchange.stdout.readline())["url"]).port or 0
            figures = measure(port, psutil.Process(exchange.pid), args)
        finally:
            exchange.terminate()
            exchange.wait()
    if args.json:
        print(json.dumps(figures))
    else:
        for key, value in figures.items():
            print(f"{key:>28}  {value}")
    return 0


def measure(port: int, exchange: psutil.Process, args: argparse.Namespace) -> dict[str, float]:
    """Subscribe to every option over the sockets, and count for the seconds asked."""
    counters = [Counter(port) for _ in range(args.sockets)]
    names = []
    for currency in ("BTC", "ETH", "USDC"):
        counters[0].send("public/get_instruments", currency=currency, kind="option")
        names += [row["instrument_name"] for row in counters[0].reply()["result"]]  # type: ignore[attr-defined]
    for i, counter in enumerate(counters):
        mine = [f"ticker.{name}.100ms" for name in names[i :: len(counters)]]
        for start in range(0, len(mine), 500):
            counter.send("public/subscribe", channels=mine[start : start + 500])
    with selectors.DefaultSelector() as selector:
        for counter in counters:
            selector.register(counter.socket, selectors.EVENT_READ, counter)
        settled = time.perf_counter() + 1.0
        start, cpu, exchange_cpu = 0.0, 0.0, 0.0
        base: tuple[int, int] = (0, 0)
        while True:
            for key, _ in selector.select(1.0):
                if not key.data.read():
                    raise SystemExit("the exchange closed the connection")
            now = time.perf_counter()
            if not start and now > settled:
                # The first second holds acknowledgements and first states.
                start, cpu, exchange_cpu = now, time.process_time(), sum(exchange.cpu_times()[:2])
                base = (sum(c.frames for c in counters), sum(c.bytes for c in counters))
            if start and now > start + args.seconds:
                break
    frames, size = sum(c.frames for c in counters) - base[0], sum(c.bytes for c in counters) - base[1]
    for counter in counters:
        counter.socket.close()
    return {
        "messages_per_second": round(frames / (now - start)),
        "mb_per_second": round(size / (now - start) / 1e6, 1),
        "bytes_per_message": round(size / frames),
        "instruments": len(names),
        "sockets": len(counters),
        "reader_cpu_us_per_message": round(1e6 * (time.process_time() - cpu) / frames, 3),
        "exchange_cpu_us_per_message": round(1e6 * (sum(exchange.cpu_times()[:2]) - exchange_cpu) / frames, 3),
        "load_average": round(os.getloadavg()[0], 1),
    }


if __name__ == "__main__":
    sys.exit(main())
