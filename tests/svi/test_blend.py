"""Blends of two slices: what is proved holds on dense scans, what is not is found."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings, strategies as st

from volsurf.svi.arbitrage import check_butterfly
from volsurf.svi.blend import PROVED, UNDECIDED, VIOLATED, check_blend
from volsurf.svi.params import RawSVI

Floats = npt.NDArray[np.float64]
VOGT = RawSVI([-0.0410], [0.1331], [0.3060], [0.3586], [0.4153])
SHARES = np.linspace(0, 1, 23)[1:-1, None]


def g_of(near: RawSVI, far: RawSVI, k: Floats, share: Floats) -> Floats:
    def parts(svi: RawSVI) -> tuple[Floats, Floats, Floats]:
        x = (k - svi.m) / svi.sigma
        radius = np.sqrt(1 + x * x)
        return (
            svi.a + svi.b * (svi.rho * (k - svi.m) + svi.sigma * radius),
            svi.b * (svi.rho + x / radius),
            svi.b / (svi.sigma * radius**3),
        )

    w, d, c = ((1 - share) * a + share * b for a, b in zip(parts(near), parts(far), strict=True))
    return np.asarray((1 - k * d / (2 * w)) ** 2 - d * d / 4 * (1 / w + 0.25) + c / 2)


@st.composite
def certified_slices(draw: st.DrawFn) -> RawSVI:
    theta = np.exp(draw(st.floats(np.log(1e-4), np.log(2.0))))
    root = np.sqrt(theta)
    if draw(st.integers(0, 7)) == 0:
        return RawSVI([theta], [0.0], [0.0], [0.0], [root])
    u, l = (min(1.99, root * np.exp(draw(st.floats(-4.0, 2.0)))) for _ in range(2))
    sigma, m = root * np.exp(draw(st.floats(-4.0, 3.0))), root * draw(st.floats(-3.0, 3.0))
    b, rho = 0.5 * (u + l), (u - l) / (u + l)
    # The level at which the slice has just no butterfly arbitrage, or more.
    low, high = -b * sigma * np.sqrt(1 - rho * rho), 20 * theta + b * sigma
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if check_butterfly(RawSVI([middle], [b], [rho], [m], [sigma])) else (middle, high)
    a = high + theta * draw(st.sampled_from([0.0, 0.01, 0.1, 1.0]))
    return RawSVI([a], [b], [rho], [m], [sigma])


@settings(max_examples=150)
@given(certified_slices(), certified_slices())
def test_what_is_proved_holds_on_a_dense_scan(near: RawSVI, far: RawSVI) -> None:
    if not (check_butterfly(near) and check_butterfly(far)):
        return
    found = check_blend(near, far)
    deviation = np.sqrt(max(near.total_variance(0.0)[0], far.total_variance(0.0)[0]))
    k = deviation * np.sinh(np.linspace(-6, 6, 1501))
    k = np.concatenate([k, *(one.m + one.sigma * np.sinh(np.linspace(-5, 5, 501)) for one in (near, far))])
    lowest = g_of(near, far, k, SHARES).min()
    if found.verdict[0] == PROVED:
        assert lowest > -1e-10
    elif found.verdict[0] == VIOLATED:
        assert g_of(near, far, found.k, found.share) < 0


def test_a_slice_with_arbitrage_is_found_in_the_blend_with_a_witness() -> None:
    far = RawSVI([0.0], [0.1331], [0.3060], [0.3586], [0.4153])
    found = check_blend(VOGT, far)
    assert found.verdict[0] == VIOLATED
    assert g_of(VOGT, far, found.k, found.share)[0] < 0
    mirrored = check_blend(
        RawSVI(VOGT.a, VOGT.b, -VOGT.rho, -VOGT.m, VOGT.sigma), RawSVI(far.a, far.b, -far.rho, -far.m, far.sigma)
    )
    assert mirrored.verdict[0] == VIOLATED
    assert mirrored.k[0] < 0 < found.k[0]


def test_steep_wings_are_never_proved() -> None:
    steep = RawSVI([0.1], [1.5], [0.5], [0.0], [0.5])  # right slope 2.25
    assert check_blend(steep, RawSVI([0.2], [1.6], [0.5], [0.0], [0.5])).verdict[0] != PROVED


def test_a_slice_blends_with_itself() -> None:
    svi = RawSVI([0.02], [0.1], [-0.3], [0.0], [0.2])
    found = check_blend(svi, svi)
    assert (found.verdict[0], found.nodes[0]) == (PROVED, 0)


def test_batches_are_what_their_pairs_are() -> None:
    near = RawSVI(
        [0.02, -0.0410, 0.001], [0.1, 0.1331, 0.02], [-0.3, 0.3060, 0.0], [0.0, 0.3586, 0.0], [0.2, 0.4153, 0.05]
    )
    far = RawSVI([0.03, 0.0, 0.4], [0.12, 0.1331, 0.3], [-0.3, 0.3060, 0.2], [0.0, 0.3586, 0.1], [0.2, 0.4153, 0.9])
    found = check_blend(near, far)
    assert found.verdict.tolist() == [PROVED, VIOLATED, PROVED]
    for i in range(3):
        one = check_blend(near[i : i + 1], far[i : i + 1])
        assert one.verdict[0] == found.verdict[i]
        assert one.nodes[0] == found.nodes[i]
    assert UNDECIDED not in found.verdict


def test_flat_slices_blend_with_each_other_and_with_smiles() -> None:
    flat, smile = RawSVI([0.025], [0.0], [0.0], [0.0], [0.1]), RawSVI([0.02], [0.1], [-0.3], [0.0], [0.2])
    for near, far in ((flat, RawSVI([0.05], [0.0], [0.0], [0.3], [1.0])), (flat, smile), (smile, flat)):
        assert check_blend(near, far).verdict[0] == PROVED
        k = np.sinh(np.linspace(-8, 8, 2001))
        assert g_of(near, far, k, SHARES).min() > -1e-10
