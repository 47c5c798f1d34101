"""A small moving market for panels: frames with surfaces of realistic shape, made without the pricing and fitting rooms."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
from msgspec.structs import replace

from volsurf.diagnostics.reasons import QuoteReason
from volsurf.engine.codec import FeedStatus
from volsurf.engine.frame import Frame
from volsurf.engine.log import ChannelLiveness, Liveness
from volsurf.errors import NotReadyError
from volsurf.surface.slices import SliceFit, Smile
from volsurf.surface.surface import Surface
from volsurf.svi._published import Enforcement
from volsurf.svi.certificate import Verdict

DAY_NS = 86_400_000_000_000
START_NS = 1_795_593_600_000_000_000  # 2026-11-25 08:00 UTC
DAYS = (0.4, 1.4, 2.4, 5.4, 9.4, 16.4, 30.4, 37.4, 65.4, 121.4, 212.4, 303.4)
SPOT = {"BTC": 92_400.0, "ETH": 3_120.0, "SOL_USDC": 141.0}
LEVEL = {"BTC": 0.46, "ETH": 0.68, "SOL_USDC": 0.82}


def smile(underlying: str, index: int, time_ns: int, number: int = 0) -> Smile:
    """One expiry: strikes on a grid, marks around an SVI slice, one-sided wings, an outlier, and a verdict that varies."""
    rng = np.random.default_rng(1000 * index + len(underlying))
    expiry_ns = START_NS + int(DAYS[index] * DAY_NS)
    years = (expiry_ns - time_ns) / (365 * DAY_NS)
    phase = number / 40.0 + index
    forward = SPOT[underlying] * (1 + 0.05 * years) * (1 + 0.002 * np.sin(number / 25.0))
    level = LEVEL[underlying] * (1 + 0.02 * np.sin(phase)) * (1 + 0.15 * np.exp(-years * 20))
    unit = level * np.sqrt(years)
    rho, m, sigma = -0.25 - 0.1 * np.exp(-3 * years), 0.05 * unit, 0.9 * unit
    b = 0.42 * level * np.sqrt(years)
    a = level**2 * years - b * (rho * -m + np.hypot(m, sigma))
    step = SPOT[underlying] * (0.005 if years < 0.02 else 0.01 if years < 0.05 else 0.02 if years < 0.2 else 0.05)
    step = float(f"{step:.1g}")
    strikes = (
        np.arange(np.ceil(forward * np.exp(-3.6 * unit) / step), np.floor(forward * np.exp(3.2 * unit) / step) + 1)
        * step
    )
    strikes = strikes[:: max(1, len(strikes) // 60)]
    k = np.log(strikes / forward)
    vol = np.sqrt((a + b * (rho * (k - m) + np.hypot(k - m, sigma))) / years)
    y = k / unit
    half = vol * (0.006 + 0.006 * np.abs(y) ** 2.2 * (1 + np.exp(-30 * years))) * rng.uniform(0.7, 1.4, k.size)
    middle = vol + half * rng.uniform(-0.55, 0.55, k.size)
    bid, ask = middle - half, middle + half
    side = np.zeros(k.size, np.int8)
    side[y < -3.1] = 1
    side[y > 2.9] = -1
    reason = np.full(k.size, int(QuoteReason.USED), np.uint8)
    if k.size > 20:
        bid[7], ask[7], reason[7] = vol[7] + 0.08, vol[7] + 0.1, int(QuoteReason.OUTLIER)
    bid[side == 1] = np.nan
    ask[side == -1] = np.nan
    butterfly, calendar, worst = Verdict.PROVED, Verdict.PROVED, 0.1
    if index == 3:
        butterfly, worst = Verdict.VIOLATED, 1.4 * unit
    if index == 7:
        calendar, worst = Verdict.VIOLATED, 6.0 * unit
    if index == 9:
        calendar = Verdict.UNDECIDED
    inside = (side == 0) & (vol >= bid) & (vol <= ask)
    enforcement = {2: Enforcement.MOVED, 5: Enforcement.GUARDED}.get(index, Enforcement.AS_FITTED)
    theta = level**2 * years
    raw = np.array([a, b, rho, m, sigma])
    used = reason == 0
    weighted = _slopes(raw, theta, years, k[used]) / half[used, None]
    covariance = np.linalg.inv(weighted.T @ weighted + 0.01 * np.eye(5)) / 4
    at_money = _slopes(raw, theta, years, np.zeros(1))[0]
    fit = SliceFit(
        a=float(a), b=float(b), rho=float(rho), m=float(m), sigma=float(sigma), result=0, cost=1.0, rms=0.41,
        inside=float(inside.sum() / (side == 0).sum()), iterations=6, n_used=int((reason == 0).sum()),
        n_two_sided=int((side == 0).sum()), atm_error=float(np.sqrt(at_money @ covariance @ at_money)),
        butterfly_verdict=int(butterfly), butterfly_condition=0, butterfly_worst_k=float(worst), butterfly_worst_value=0.2,
        calendar_verdict=int(calendar), calendar_condition=0, calendar_worst_k=float(worst), calendar_worst_value=0.0,
        theta=float(theta), covariance=tuple(covariance[np.triu_indices(5)].tolist()), enforcement=int(enforcement),
        move={2: 0.0009, 5: 0.012}.get(index, 0.0),
    )  # fmt: skip
    return Smile(
        underlying=underlying, expiry_ns=expiry_ns, time_ns=time_ns, forward=float(forward), years=float(years), strike=strikes,
        log_moneyness=k, bid_vol=bid, ask_vol=ask, vol=middle, error=half, side=side, is_call=k > 0,
        instrument_id=np.arange(k.size, dtype=np.int32), reason=reason, forward_source=0, forward_error=1.0, mismatch_bp=0.2,
        forward_flagged=False, fit=fit,
    )  # fmt: skip


def _slopes(raw: np.ndarray, theta: float, years: float, k: np.ndarray) -> np.ndarray:
    """Derivatives of the vols at k by (α, U, L, μ, ς), by differences; shape (n, 5)."""
    a, b, rho, m, sigma = raw
    root = np.sqrt(theta)
    x = np.array([a / theta, b * (1 + rho) / root, b * (1 - rho) / root, m / root, np.log(sigma / root)])

    def vol(x: np.ndarray) -> np.ndarray:
        alpha, up, low, mu, log_sigma = x
        b, rho, d = root * (up + low) / 2, (up - low) / (up + low), k - root * mu
        return np.sqrt((theta * alpha + b * (rho * d + np.hypot(d, root * np.exp(log_sigma)))) / years)

    return np.stack([(vol(x + step) - vol(x - step)) / 2e-5 for step in 1e-5 * np.eye(5)], axis=1)


def surface(underlying: str, time_ns: int, number: int = 0, expiries: int = len(DAYS)) -> Surface:
    """The surface of one underlying."""
    return Surface(underlying, time_ns, tuple(smile(underlying, i, time_ns, number) for i in range(expiries)))


WELL = Liveness(
    skew_ns=3_400_000, lag_median_ms=5.2, lag_p95_ms=18.0, quote_age_median_ms=92.0, quote_age_p95_ms=640.0,
    channels=(ChannelLiveness("quotes", 20.0, 30_000.0, 5.2, 18.0, True), ChannelLiveness("index btc_usd", 700.0, 10_000.0)),
)  # fmt: skip


def status(
    messages: int = 0,
    silent_ns: int = 40_000_000,
    state: str = "ready",
    name: str = "deribit",
    liveness: Liveness = WELL,
    left_out: tuple[str, ...] = (),
) -> FeedStatus:
    """A feed that is well, unless told otherwise."""
    return FeedStatus(
        name=name, state=state, is_live=state == "ready", silent_ns=silent_ns, connections=2, connected=2, messages=messages,
        malformed=0, reconnects=0, heartbeats_missed=0, late_batches=0, sentence="2 of 2 connections ready",
        left_out=left_out, liveness=liveness,
    )  # fmt: skip


def four_feeds(number: int) -> dict[str, FeedStatus]:
    """One that is well, one whose books miss changes, one that is late and out, one whose index is silent."""
    gappy = replace(
        WELL, skew_ns=-41_000_000, lag_median_ms=-35.0, lag_p95_ms=61.0, gaps=12, resyncs=11, crossed=3, takeovers=1
    )
    late = replace(WELL, skew_ns=7_300_000_000, lag_median_ms=7_450.0, lag_p95_ms=12_600.0, quote_age_p95_ms=5_400.0)
    quiet = replace(WELL, channels=(WELL.channels[0], ChannelLiveness("index BTCUSDT", 14_200.0, 10_000.0)))
    return {
        "deribit": status(1_234 * number),
        "okx": status(410 * number, name="okx", liveness=gappy),
        "bybit": status(97 * number, name="bybit", state="late", liveness=late, left_out=("BTC", "ETH")),
        "binance": status(260 * number, name="binance", liveness=quiet),
    }


def frame(
    number: int = 1,
    underlyings: tuple[str, ...] = ("BTC", "ETH"),
    *,
    silent_ns: int = 40_000_000,
    feeds: dict[str, FeedStatus] | None = None,
) -> Frame:
    """Frame `number`, a tenth of a second after the one before."""
    time_ns = START_NS + number * 100_000_000
    surfaces = {name: surface(name, time_ns, number, len(DAYS) if name == "BTC" else 9) for name in underlyings}
    listed = {name: tuple(s.expiry_ns for s in one.smiles) for name, one in surfaces.items()}
    return Frame(
        number, time_ns, surfaces, feeds or {"deribit": status(1_234 * number, silent_ns)}, {"deribit": number}, (), listed,
        timings={"total": 4.2},
    )  # fmt: skip


class Source:
    """A session's shape: `.frame`, `.on_frame(fn)`, driven by hand with `push` or by a thread with `run`."""

    def __init__(self) -> None:
        self.newest: Frame | None = None
        self.status = "waiting for the first frame: compiling kernels…"
        self.connected = True
        self.listeners: list[Callable[[Frame], None]] = []

    @property
    def frame(self) -> Frame:
        if self.newest is None:
            raise NotReadyError(self.status)
        return self.newest

    def on_frame(self, fn: Callable[[Frame], None]) -> Callable[[], None]:
        self.listeners.append(fn)
        return lambda: self.listeners.remove(fn)

    def push(self, one: Frame) -> None:
        self.newest = one
        self.status = ""
        for fn in list(self.listeners):
            fn(one)

    def run(self, underlyings: tuple[str, ...] = ("BTC", "ETH"), every: float = 0.1) -> None:
        """Push frames for ever from a daemon thread."""

        def drive() -> None:
            number = 0
            while True:
                number += 1
                self.push(frame(number, underlyings))
                time.sleep(every)

        threading.Thread(target=drive, daemon=True, name="market").start()
